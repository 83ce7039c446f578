"""Augmentation agreement: members keep their label under small changes of the record; needs labels alone."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from attacks.capabilities import Capability
from attacks.image_views import moved
from attacks.protocol import Attack, MembershipScores
from attacks.threat_model import ThreatModel
from attacks.view import View
from defenses.progress import OnProgress, Progress, silent
from defenses.records import FloatArray, Image, Records

_SCALES = (0.1, 0.2, 0.4, 0.8)  # of a feature's spread, or of its chance to be drawn anew


@dataclass(frozen=True)
class AugmentationAgreement(Attack):
    """Score each record by the share of its changed copies that still get its true label; the record itself counts.

    An image is mirrored and moved; a row of a table gets noise on its numbers while features of two values are drawn
    anew from the column, at growing strength.

    Attributes:
        shift: Largest move of an image along each axis in pixels, at least 1.
        copies: Noisy copies of a row at each of four strengths, at least 1.

    Source: Choquette-Choo et al. 2021, "Label-Only Membership Inference Attacks", section 4.2 (augmentations) and
    section 4.4 (noise for tables). Deviation: the share is the score; no shadow model learns weights of the copies.
    """

    shift: int = 2
    copies: int = 25

    name = "augmentation_agreement"
    title = "Augmentation agreement"
    paper = "Choquette-Choo et al. 2021, Label-Only Membership Inference Attacks"
    requires = ThreatModel(frozenset({Capability.LABELS, Capability.RECORDS}))

    def __post_init__(self) -> None:
        if self.shift < 1 or self.copies < 1:
            raise ValueError(f"shift is {self.shift} and copies {self.copies}; both must be at least 1")

    def run(self, view: View, *, rng: np.random.Generator, on_progress: OnProgress = silent) -> MembershipScores:
        """Return the share of right labels, in [0, 1]."""
        records = view.candidates
        image = isinstance(records.kind, Image)
        total = 2 * (2 * self.shift + 1) ** 2 if image else 1 + len(_SCALES) * self.copies
        right = np.zeros(len(records))
        for done, x in enumerate(_moved(records.x, self.shift) if image else _noisy(records, self.copies, rng)):
            right += view.labels(x) == records.y
            on_progress(Progress("augmentation agreement", done + 1, total))
        return MembershipScores(right / total)


def _moved(x: FloatArray, shift: int) -> Iterator[FloatArray]:
    """Yield images mirrored or not and moved by up to `shift` pixels; what comes in from outside is 0."""
    for mirrored in (False, True):
        for down, right in itertools.product(range(shift, -shift - 1, -1), repeat=2):
            yield moved(x, mirrored, down, right)


def _noisy(records: Records, copies: int, rng: np.random.Generator) -> Iterator[FloatArray]:
    """Yield rows as they are, then copies with ever more noise."""
    x = records.x
    yield x
    two_valued = np.array([len(np.unique(column)) <= 2 for column in x.reshape(len(x), -1).T]).reshape(x.shape[1:])
    spread = x.std(axis=0)
    for scale in _SCALES:
        for _ in range(copies):
            noise = x + scale * spread * rng.standard_normal(x.shape, dtype=np.float32)
            drawn = x[rng.integers(len(x), size=len(x))]
            anew = np.where(rng.random(x.shape) < scale / 2, drawn, x)
            yield np.where(two_valued, anew, noise).astype(np.float32)
