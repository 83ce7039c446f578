"""Threat models: what an adversary has, or what an attack needs."""

from dataclasses import dataclass

from attacks.capabilities import Capability, implied_capabilities

LABEL = "label"  # a hidden value that is no column


@dataclass(frozen=True)
class ThreatModel:
    """What an adversary has, or what an attack needs.

    Attributes:
        access: Capabilities on the target; implications are added by `implied_capabilities`.
        population: Whether records from the same source, surely outside training, are at hand.
        recipe: Whether the training recipe is known, so that shadow models can be trained.
        candidates: Whether the adversary is shown the records in question. Who asks which of them were in must be; who
            reconstructs records must not.
        hidden: What of the candidates is kept from who is shown them: names of columns, or `LABEL`.
    """

    access: frozenset[Capability]
    population: bool = False
    recipe: bool = False
    candidates: bool = True
    hidden: tuple[str, ...] = ()

    def missing_in(self, offered: "ThreatModel") -> list[str]:
        """Return in words what this threat model needs and `offered` does not give; empty if it all is there."""
        missing = sorted(str(one) for one in implied_capabilities(self.access) - implied_capabilities(offered.access))
        if self.population and not offered.population:
            missing.append("population records outside training")
        if self.recipe and not offered.recipe:
            missing.append("the training recipe")
        return missing
