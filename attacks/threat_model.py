"""What an adversary may see: capabilities, threat models, and the view that discloses exactly that and nothing more."""

import copy
import enum
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from torch import nn

from defenses.ensemble import module_logits
from defenses.errors import NotApplicableError, NotDisclosedError
from defenses.guarantee import Guarantee, Unaccounted
from defenses.records import FloatArray, Image, IntArray, Records, Table

if TYPE_CHECKING:
    from attacks.shadows import Shadows

Float64Array = npt.NDArray[np.float64]


class Capability(enum.StrEnum):
    """One thing that a target may disclose; `RECORDS` are the candidates themselves, not only what is said of them."""

    LABELS = "labels"
    PROBABILITIES = "probabilities"
    LOGITS = "logits"
    WEIGHTS = "weights"
    RECORDS = "records"


_IMPLIES = {
    Capability.WEIGHTS: (Capability.LOGITS,),
    Capability.LOGITS: (Capability.PROBABILITIES,),
    Capability.PROBABILITIES: (Capability.LABELS,),
    Capability.LABELS: (),
    Capability.RECORDS: (),
}


def closure(capabilities: Iterable[Capability]) -> frozenset[Capability]:
    """Return the capabilities together with everything that they imply."""
    found: set[Capability] = set()
    waiting = list(capabilities)
    while waiting:
        capability = waiting.pop()
        if capability not in found:
            found.add(capability)
            waiting += _IMPLIES[capability]
    return frozenset(found)


@dataclass(frozen=True)
class ThreatModel:
    """What an adversary has, or what an attack needs.

    Attributes:
        access: Capabilities on the target; implications are added by `closure`.
        population: Whether records from the same source, surely outside training, are at hand.
        recipe: Whether the training recipe is known, so that shadow models can be trained.
        candidates: Whether the adversary is shown the records in question. Who asks which of them were in must be; who
            reconstructs records must not.
    """

    access: frozenset[Capability]
    population: bool = False
    recipe: bool = False
    candidates: bool = True

    def missing_in(self, offered: "ThreatModel") -> list[str]:
        """Return in words what this threat model needs and `offered` does not give; empty if it all is there."""
        missing = sorted(str(one) for one in closure(self.access) - closure(offered.access))
        if self.population and not offered.population:
            missing.append("population records outside training")
        if self.recipe and not offered.recipe:
            missing.append("the training recipe")
        return missing


@dataclass(frozen=True)
class Target:
    """What is attacked: one trained model and what is known of it.

    Attributes:
        model: The trained model, in evaluation mode.
        candidates: (m) the records whose membership is asked for.
        digest: SHA-256 of the weights.
        guarantee: What is proved of its training.
        population: (z) records outside training, if any.
        shadows: Where models that train alike can be had, if the recipe is known.
        access: What of the model can be disclosed at most; all of it, where the model itself is at hand.
    """

    model: nn.Module
    candidates: Records
    digest: str
    guarantee: Guarantee | Unaccounted | None = None
    population: Records | None = None
    shadows: "Shadows | None" = None
    access: frozenset[Capability] = frozenset({Capability.WEIGHTS, Capability.RECORDS})

    @property
    def offers(self) -> ThreatModel:
        """All that could be disclosed about this target."""
        return ThreatModel(self.access, population=self.population is not None, recipe=self.shadows is not None)


@dataclass(frozen=True)
class Facts:
    """What everybody knows of the records that a target takes.

    Attributes:
        shape: Of one record.
        classes: Number of classes C.
        kind: What a record is, with its public ranges.
    """

    shape: tuple[int, ...]
    classes: int
    kind: Image | Table


@dataclass(frozen=True)
class View:
    """Exactly what a threat model discloses of a target; never who was in.

    Attributes:
        facts: Shape, classes and ranges of records.
        access: Capabilities, implications included.
        digest: Fingerprint of the target.
    """

    facts: Facts
    access: frozenset[Capability]
    digest: str
    _candidates: Records | None = field(repr=False)
    _model: nn.Module = field(repr=False)
    _population: Records | None = field(repr=False)
    _shadows: "Shadows | None" = field(repr=False)
    _device: str = field(repr=False, default="cpu")

    def logits(self, x: FloatArray) -> Float64Array:
        """Return the target's logits (n, C) on records (n, *shape)."""
        self._need(Capability.LOGITS)
        return module_logits(self._model, x, device=self._device)

    def probabilities(self, x: FloatArray) -> Float64Array:
        """Return the target's class probabilities (n, C) on records (n, *shape)."""
        self._need(Capability.PROBABILITIES)
        logits = module_logits(self._model, x, device=self._device)
        shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray(shifted / shifted.sum(axis=1, keepdims=True))

    def labels(self, x: FloatArray) -> IntArray:
        """Return the target's predicted classes (n,) on records (n, *shape)."""
        self._need(Capability.LABELS)
        return np.asarray(module_logits(self._model, x, device=self._device).argmax(axis=1), dtype=np.int64)

    def module(self) -> nn.Module:
        """Return a copy of the target itself, in evaluation mode, on the device where it answers."""
        self._need(Capability.WEIGHTS)
        return copy.deepcopy(self._model).to(self._device).eval()

    @property
    def candidates(self) -> Records:
        """The records (m) whose membership is asked for."""
        if self._candidates is None:
            raise NotDisclosedError("this threat model does not show the records in question")
        return self._candidates

    @property
    def population(self) -> Records:
        """Records from the same source that are surely outside training."""
        if self._population is None:
            raise NotDisclosedError("this threat model has no population records")
        return self._population

    @property
    def shadows(self) -> "Shadows":
        """Where the attacker gets models that were trained alike."""
        if self._shadows is None:
            raise NotDisclosedError("this threat model does not disclose the training recipe")
        return self._shadows

    def _need(self, capability: Capability) -> None:
        if capability not in self.access:
            raise NotDisclosedError(f"this threat model does not disclose {capability}; it has {sorted(self.access)}")


def expose(target: Target, threat_model: ThreatModel, *, device: str = "cpu") -> View:
    """Build the view of a target under a threat model: the only thing that an attack is ever given.

    Args:
        target: What is attacked.
        threat_model: What is disclosed.
        device: Where the target answers queries.

    Returns:
        A view that refuses everything else with `NotDisclosedError`.

    Raises:
        NotApplicableError: If the target cannot offer what the threat model discloses; names what is missing.
    """
    missing = threat_model.missing_in(target.offers)
    if missing:
        raise NotApplicableError(f"needs {' and '.join(missing)}, which this audit does not have")
    return View(
        facts=Facts(target.candidates.shape, target.candidates.classes, target.candidates.kind),
        access=closure(threat_model.access),
        digest=target.digest,
        _candidates=target.candidates if threat_model.candidates else None,
        _model=target.model,
        _population=target.population if threat_model.population else None,
        _shadows=target.shadows if threat_model.recipe else None,
        _device=device,
    )
