"""What an adversary may see: capabilities, threat models, and the view that discloses exactly that and nothing more."""

import copy
import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt
from torch import nn

from attacks.capabilities import Capability as Capability
from attacks.capabilities import closure as closure
from attacks.transcript import Transcript
from attacks.validation import check_answers, check_parts, check_slopes, understood
from defenses.ensemble import module_logits
from defenses.errors import NotApplicableError, NotDisclosedError
from defenses.guarantee import Guarantee, Unaccounted
from defenses.records import FloatArray, Image, IntArray, Records, Table

if TYPE_CHECKING:
    from attacks.shadows import Shadows

Float64Array = npt.NDArray[np.float64]

LABEL = "label"  # a hidden value that is no column


@dataclass(frozen=True)
class ThreatModel:
    """What an adversary has, or what an attack needs.

    Attributes:
        access: Capabilities on the target; implications are added by `closure`.
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
        missing = sorted(str(one) for one in closure(self.access) - closure(offered.access))
        if self.population and not offered.population:
            missing.append("population records outside training")
        if self.recipe and not offered.recipe:
            missing.append("the training recipe")
        return missing


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

    Example:
        >>> released = Records(np.zeros((4, 2), np.float32), np.zeros(4, np.int64), 2, Table((), "y", ()))
        >>> sorted(Target(None, released, "d", synthetic=released).offers.access)
        [<Capability.RECORDS: 'records'>, <Capability.SYNTHETIC: 'synthetic'>]
    """

    model: "nn.Module | Classifier | None"
    candidates: Records
    digest: str
    guarantee: Guarantee | Unaccounted | None = None
    population: Records | None = None
    shadows: "Shadows | None" = None
    access: frozenset[Capability] = frozenset({Capability.WEIGHTS, Capability.RECORDS})
    transcript: Transcript | None = None
    synthetic: Records | None = None

    @property
    def offers(self) -> ThreatModel:
        """All that could be disclosed about this target."""
        access = closure(self.access)
        if not isinstance(self.model, nn.Module):
            access -= {Capability.WEIGHTS}
        if self.model is None:
            access -= closure({Capability.LOGITS})
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


def logits_of(model: "nn.Module | Classifier | None", x: FloatArray, *, device: str = "cpu") -> Float64Array:
    """Return what a model answers to records (n, *shape), as logits (n, C) in float64.

    Raises:
        NotApplicableError: If there is no model.
    """
    if model is None:
        raise NotApplicableError("needs a model, which this audit does not have")
    return module_logits(model, x, device=device) if isinstance(model, nn.Module) else model.logits(x)


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

    @property
    def value_range(self) -> tuple[float, float]:
        """The least and the greatest value of a feature; columns of tables are encoded in 0 to 1."""
        return (self.kind.low, self.kind.high) if isinstance(self.kind, Image) else (0.0, 1.0)


@dataclass
class Tally:
    """How many records the target was asked about."""

    count: int = 0


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
    _model: "nn.Module | Classifier | None" = field(repr=False)
    _population: Records | None = field(repr=False)
    _shadows: "Shadows | None" = field(repr=False)
    _device: str = field(repr=False, default="cpu")
    _transcript: Transcript | None = field(repr=False, default=None)
    _synthetic: Records | None = field(repr=False, default=None)
    _tally: Tally = field(repr=False, default_factory=Tally)

    def logits(self, x: FloatArray) -> Float64Array:
        """Return the target's logits (n, C) on records (n, *shape)."""
        self._need(Capability.LOGITS)
        return self._ask(x)

    def probabilities(self, x: FloatArray) -> Float64Array:
        """Return the target's class probabilities (n, C) on records (n, *shape)."""
        self._need(Capability.PROBABILITIES)
        logits = self._ask(x)
        shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray(shifted / shifted.sum(axis=1, keepdims=True))

    def labels(self, x: FloatArray) -> IntArray:
        """Return the target's predicted classes (n,) on records (n, *shape)."""
        self._need(Capability.LABELS)
        return np.asarray(self._ask(x).argmax(axis=1), dtype=np.int64)

    @property
    def queries(self) -> int:
        """How many records this view has answered for so far."""
        return self._tally.count

    def module(self) -> nn.Module:
        """Return a copy of the target itself, in evaluation mode, on the device where it answers.

        Raises:
            NotApplicableError: If it cannot be differentiated: its weights would say no more than its answers do.
        """
        self._need(Capability.WEIGHTS)
        assert isinstance(self._model, nn.Module)  # or its weights could not have been disclosed
        model = copy.deepcopy(self._model).to(self._device).eval()
        check_slopes(model, self.facts)
        return model

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

    @property
    def transcript(self) -> Transcript:
        """What participants of a training sent."""
        self._need(Capability.GRADIENTS)
        assert self._transcript is not None
        return self._transcript

    @property
    def synthetic(self) -> Records:
        """The records (r) that were released in place of the real ones."""
        self._need(Capability.SYNTHETIC)
        assert self._synthetic is not None
        return self._synthetic

    def _ask(self, x: FloatArray) -> Float64Array:
        self._tally.count += len(x)
        if not len(x):
            return np.empty((0, self.facts.classes))
        with understood(x.shape[1:]):
            logits = logits_of(self._model, x, device=self._device)
        check_answers(logits, count=len(x), classes=self.facts.classes)
        return logits

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
        DataError: If parts of the target do not belong together.
    """
    missing = threat_model.missing_in(target.offers)
    if missing:
        raise NotApplicableError(f"needs {' and '.join(missing)}, which this audit does not have")
    seen = closure(threat_model.access)
    check_parts(target, seen, population=threat_model.population)
    return View(
        facts=Facts(target.candidates.shape, target.candidates.classes, target.candidates.kind),
        access=seen,
        digest=target.digest,
        _candidates=_without(target.candidates, threat_model.hidden) if threat_model.candidates else None,
        _model=target.model,
        _population=target.population if threat_model.population else None,
        _shadows=target.shadows if threat_model.recipe else None,
        _device=device,
        _transcript=target.transcript if Capability.GRADIENTS in threat_model.access else None,
        _synthetic=target.synthetic if Capability.SYNTHETIC in threat_model.access else None,
    )


def _without(records: Records, hidden: tuple[str, ...]) -> Records:
    """Return records whose hidden columns, or labels, hold zeros."""
    if not hidden:
        return records
    columns = {column.name: column for column in records.kind.columns} if isinstance(records.kind, Table) else {}
    x, y = records.x.copy(), records.y
    for name in hidden:
        if name == LABEL:
            y = np.zeros_like(y)
        elif name in columns:
            start = columns[name].start
            x[:, start : start + columns[name].width] = 0
        else:
            known = f"columns are {', '.join(columns)}" if columns else "they have no columns"
            raise NotApplicableError(f"is about {name!r}, which records of this audit do not have: {known}")
    return dataclasses.replace(records, x=x, y=y)
