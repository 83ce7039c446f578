"""Model inversion by asking alone: for each class, the record that the target is surest of, without its weights."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from attacks.capabilities import Capability
from attacks.protocol import Attack, Reconstructions
from attacks.reconstruction.model_inversion import rougher
from attacks.record_spec import RecordSpec
from attacks.threat_model import ThreatModel
from attacks.view import View
from defenses.progress import OnProgress, Progress, silent
from defenses.records import Image

Float64Array = npt.NDArray[np.float64]

_TINY = 1e-12
_REPORT = 10


@dataclass(frozen=True)
class BlackBoxInversion(Attack):
    """Climb from plain grey to what the target calls a class with confidence, by finite differences of its answers.

    Directions are random combinations of the slowest cosines of an image, asked about on both sides; so a step costs
    the same whatever the size of the image, and the reconstruction is smooth without a further prior. Judged as every
    reconstruction: what it shows is what a class looks like, which is a leak of records where a class is a person.

    Attributes:
        steps: At least 1.
        directions: Pairs of queries for each class and step, at least 1.
        frequencies: Cosines along each side of an image, at least 1; every feature of what is no image.
        step_size: Mean movement of a feature in one step, as a share of its range.
        probe: How far from a reconstruction it is asked, as a share of the range.
        smoothness: Pull towards less total variation of images, against the pull towards the class; at least 0.
        confidence: Probability of the class that a reconstruction should reach, in (0, 1).
        early_stop: Whether a reconstruction is finished there, which costs fewer queries, instead of climbing to the
            last step.

    Source: Fredrikson, Jha and Ristenpart 2015, section 5, whose black-box attack takes finite differences along every
    pixel. Deviation: random low frequencies with antithetic queries (Wierstra et al. 2014, "Natural Evolution
    Strategies"), which need far fewer of them; no early stop, which looks less like the class. On digits the
    reconstructions of small networks correlate with the class mean by 0.61 to 0.69, of ReLU convolutions by 0.44. It
    starts from a dark grey, as `model_inversion` does.
    """

    steps: int = 120
    directions: int = 20
    frequencies: int = 8
    step_size: float = 0.0125
    probe: float = 0.1
    smoothness: float = 0.25
    confidence: float = 0.9999
    early_stop: bool = False

    name = "black_box_inversion"
    title = "Model inversion by queries"
    paper = "Fredrikson et al. 2015, Model Inversion Attacks that Exploit Confidence Information"
    requires = ThreatModel(frozenset({Capability.PROBABILITIES}), candidates=False)
    claims = Reconstructions
    similarity = "ncc"  # brightness and contrast of what a class looks like are anybody's guess
    example = {"steps": 150}

    def __post_init__(self) -> None:
        for name in ("steps", "directions", "frequencies"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if not 0 < self.confidence < 1 or not self.step_size > 0 or not self.probe > 0:
            raise ValueError(
                f"confidence is {self.confidence}, step_size {self.step_size}, probe {self.probe}; give a probability "
                "strictly between 0 and 1, and two positive shares"
            )
        if not 0 <= self.smoothness < np.inf:
            raise ValueError(f"smoothness is {self.smoothness}; it must be at least 0, and finite")

    def run(self, view: View, *, rng: np.random.Generator, on_progress: OnProgress = silent) -> Reconstructions:
        """Return one reconstruction of each class, and say how many reached the confidence and what that cost."""
        facts = view.facts
        low, high = facts.value_range
        basis = slow_basis(facts, self.frequencies)
        y, size = np.arange(facts.classes), basis.shape[1]
        x = np.full((len(y), size), low + (high - low) / 4)
        best, sure = x.copy(), np.zeros(len(y))
        length, radius = (share * (high - low) * size**0.5 for share in (self.step_size, self.probe))

        def ask(x: Float64Array, y: npt.NDArray[np.int64]) -> tuple[Float64Array, Float64Array]:
            """Return log-odds and probability of the class."""
            records = x.reshape(-1, *facts.shape).astype(np.float32)
            own = view.probabilities(records)[np.arange(len(y)), y]
            return np.log(own + _TINY) - np.log1p(_TINY - own), own

        for step in range(self.steps):
            _, confidence = ask(x, y)
            finished = self.early_stop & (sure >= self.confidence)
            better = ~finished & (confidence >= sure)  # of equals, which rounding makes, the last
            best[better], sure[better] = x[better], confidence[better]
            open_ = np.flatnonzero((sure < self.confidence) | (not self.early_stop))
            if not len(open_):
                break
            turns = rng.standard_normal((len(open_), self.directions, len(basis))) @ basis
            turns *= radius / np.linalg.norm(turns, axis=2, keepdims=True)
            asked = np.clip(x[open_, None, None] + np.stack([turns, -turns], axis=2), low, high)
            odds, _ = ask(asked.reshape(-1, size), np.repeat(y[open_], 2 * self.directions))
            rise = np.diff(odds.reshape(len(open_), self.directions, 2), axis=2)
            climb = -(rise * turns).sum(axis=1)
            images = torch.from_numpy(x[open_].reshape(-1, *facts.shape))
            climb = _unit(climb) - self.smoothness * rougher(images, facts).numpy().reshape(len(open_), -1)
            x[open_] = np.clip(x[open_] + length * _unit(climb), low, high)
            if step % _REPORT == 0:
                on_progress(Progress("inverting the model by queries", step, self.steps))
        reached = int((sure >= self.confidence).sum())
        note = (
            f"{reached} of {len(y)} reconstructions reached a confidence of {self.confidence:g} for their class, with "
            f"{view.queries:,} queries in all."
        )
        return Reconstructions(best.reshape(-1, *facts.shape).astype(np.float32), (note,))


def slow_basis(facts: RecordSpec, frequencies: int) -> Float64Array:
    """Return directions in which an image changes smoothly, (b, features): products of its slowest cosines.

    Of anything but an image, every feature is a direction of its own.
    """
    if not isinstance(facts.kind, Image) or len(facts.shape) != 3:
        return np.eye(int(np.prod(facts.shape)))
    channels, height, width = facts.shape
    down, across = (_cosines(side, min(frequencies, side)) for side in (height, width))
    plane = np.einsum("ih,jw->ijhw", down, across).reshape(-1, height * width)
    return np.kron(np.eye(channels), plane)


def _unit(x: Float64Array) -> Float64Array:
    """Return rows of length 1, or 0 where they were 0."""
    return np.asarray(x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-30))


def _cosines(side: int, count: int) -> Float64Array:
    """Return the first cosines of the discrete cosine transform (count, side), of unit length."""
    found = np.cos(np.pi * (np.arange(side) + 0.5) * np.arange(count)[:, None] / side)
    return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True))
