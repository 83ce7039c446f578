"""The view of a target: exactly what a threat model discloses, and the only thing that an attack is given."""

import copy
import dataclasses
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from torch import nn

from attacks.capabilities import Capability, implied_capabilities
from attacks.image_views import viewed
from attacks.record_spec import RecordSpec
from attacks.shadow_outputs import Shadows
from attacks.target import Classifier, Target, logits_of
from attacks.threat_model import LABEL, ThreatModel
from attacks.transcript import Transcript
from attacks.validation import check_answers, check_parts, check_slopes, understood
from defenses.errors import NotApplicableError, NotDisclosedError
from defenses.records import FloatArray, IntArray, Records, Table

Float64Array = npt.NDArray[np.float64]


@dataclass
class QueryCounter:
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

    facts: RecordSpec
    access: frozenset[Capability]
    digest: str
    _candidates: Records | None = field(repr=False)
    _model: nn.Module | Classifier | None = field(repr=False)
    _population: Records | None = field(repr=False)
    _shadows: Shadows | None = field(repr=False)
    _device: str = field(repr=False, default="cpu")
    _transcript: Transcript | None = field(repr=False, default=None)
    _synthetic: Records | None = field(repr=False, default=None)
    _tally: QueryCounter = field(repr=False, default_factory=QueryCounter)

    def logits(self, x: FloatArray) -> Float64Array:
        """Return the target's logits (n, C) on records (n, *shape)."""
        self._need(Capability.LOGITS)
        return self._ask(x)

    def logits_of_views(self, records: Records, queries: int) -> Float64Array:
        """Return the target's logits on several views of images.

        Args:
            records: n images, or any records where `queries` is 1.
            queries: Number of views q, 1 .. 10 (see `attacks.image_views.viewed`).

        Returns:
            (q, n, C); (n, C) for one view.

        Raises:
            NotApplicableError: If several views are asked of records that are not images.
        """
        logits = [self.logits(x) for x in viewed(records, queries)]
        return np.stack(logits) if queries > 1 else logits[0]

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
    def shadows(self) -> Shadows:
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
    seen = implied_capabilities(threat_model.access)
    check_parts(target, seen, population=threat_model.population)
    return View(
        facts=RecordSpec(target.candidates.shape, target.candidates.classes, target.candidates.kind),
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
