"""What is attacked, with everything that is held of it, and what it can offer to attacks."""

import dataclasses
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
from torch import nn

from attacks.capabilities import Capability, implied_capabilities
from attacks.shadow_outputs import Shadows
from attacks.threat_model import ThreatModel
from attacks.transcript import Transcript
from defenses.ensemble import module_logits
from defenses.errors import NotApplicableError
from defenses.guarantee import Guarantee, Unaccounted
from defenses.records import FloatArray, Records

Float64Array = npt.NDArray[np.float64]


class Classifier(Protocol):
    """A model that is not a torch module and answers queries: an estimator of another library, recorded outputs."""

    def logits(self, x: FloatArray) -> Float64Array:
        """Return logits (n, C) in float64 on records (n, *shape)."""
        ...


@dataclass(frozen=True)
class Target:
    """What is attacked, with everything that is held of it: a model, a transcript of gradients, released records.

    What it offers to attacks follows from what is held; an attack that needs anything else is refused.

    Attributes:
        model: The trained model: a torch module in evaluation mode, which can be differentiated, or a `Classifier`,
            which only answers; None where there is no model, such as for released records alone.
        candidates: (m) the records whose membership is asked for.
        digest: SHA-256 of the weights, or of whatever else is attacked.
        guarantee: What is proved of its training.
        population: (z) records outside training, if any.
        shadows: Where models that train alike can be had, if the recipe is known.
        access: What is disclosed at most of the model and the candidates; what the model cannot give is left out.
        transcript: What participants of a training sent, where that is what is attacked.
        synthetic: (r) records that were released in place of the real ones, where those are attacked.

    Examples:
        >>> released = Records(np.zeros((4, 2), np.float32), np.zeros(4, np.int64), 2, Table((), "y", ()))
        >>> sorted(Target(None, released, "d", synthetic=released).offers.access)
        [<Capability.RECORDS: 'records'>, <Capability.SYNTHETIC: 'synthetic'>]
    """

    model: nn.Module | Classifier | None
    candidates: Records
    digest: str
    guarantee: Guarantee | Unaccounted | None = None
    population: Records | None = None
    shadows: Shadows | None = None
    access: frozenset[Capability] = frozenset({Capability.WEIGHTS, Capability.RECORDS})
    transcript: Transcript | None = None
    synthetic: Records | None = None

    @property
    def offers(self) -> ThreatModel:
        """All that could be disclosed about this target."""
        access = implied_capabilities(self.access)
        if not isinstance(self.model, nn.Module):
            access -= {Capability.WEIGHTS}
        if self.model is None:
            access -= implied_capabilities({Capability.LOGITS})
        beside = {Capability.GRADIENTS: self.transcript, Capability.SYNTHETIC: self.synthetic}
        access |= {capability for capability, held in beside.items() if held is not None}
        return ThreatModel(access, population=self.population is not None, recipe=self.shadows is not None)

    @property
    def fingerprints(self) -> list[object]:
        """Everything that a claim about it may depend on; a file of records may change under its name."""
        sent = self.transcript and dataclasses.replace(self.transcript, gradients={})
        sets = (self.candidates, self.population, self.synthetic)
        return [self.digest, repr(sent), *(None if one is None else [one.digest, repr(one.kind)] for one in sets)]

    def can(self, capability: Capability) -> bool:
        """Say whether a capability could be disclosed, implied ones included."""
        return capability in self.offers.access

    def logits(self, x: FloatArray, *, device: str = "cpu") -> Float64Array:
        """Return the model's logits (n, C) in float64 on records (n, *shape).

        Raises:
            NotApplicableError: If there is no model.
        """
        return logits_of(self.model, x, device=device)


def logits_of(model: nn.Module | Classifier | None, x: FloatArray, *, device: str = "cpu") -> Float64Array:
    """Return what a model answers to records (n, *shape), as logits (n, C) in float64.

    Raises:
        NotApplicableError: If there is no model.
    """
    if model is None:
        raise NotApplicableError("needs a model, which this audit does not have")
    return module_logits(model, x, device=device) if isinstance(model, nn.Module) else model.logits(x)
