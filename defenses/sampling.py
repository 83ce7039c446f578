"""Which records make up each step's lot, drawn before training from named streams."""

from dataclasses import dataclass

import numpy as np

from defenses.randomness import stream
from defenses.records import BoolArray, IntArray


@dataclass(frozen=True)
class Lots:
    """The public facts of sampling: everything an accountant may know, fixed before any record is looked at.

    Attributes:
        expected_members: Nominal size n of the training set, from the plan; the realised size is private.
        batch_size: Expected lot size B, in 1 .. expected_members; also the constant that noisy sums are divided by.
        epochs: Passes over the nominal training set, at least 1.

    Raises:
        ValueError: If a value is out of range.
    """

    expected_members: int
    batch_size: int
    epochs: int

    def __post_init__(self) -> None:
        if self.expected_members < 1 or self.epochs < 1:
            raise ValueError(
                f"expected_members is {self.expected_members}, epochs {self.epochs}; both must be at least 1"
            )
        if not 1 <= self.batch_size <= self.expected_members:
            raise ValueError(
                f"batch_size is {self.batch_size}; it must be in 1..{self.expected_members}, the expected training size"
            )

    @property
    def sampling_probability(self) -> float:
        """Chance q of each record to be in a Poisson lot."""
        return self.batch_size / self.expected_members

    @property
    def steps_per_epoch(self) -> int:
        """Poisson lots per epoch, rounded up, so that an epoch is never less than a nominal pass."""
        return -(-self.expected_members // self.batch_size)

    @property
    def steps(self) -> int:
        """Poisson lots of the whole run."""
        return self.epochs * self.steps_per_epoch


def poisson_lots(lots: Lots, included: BoolArray, *, seed: int, epoch: int) -> list[IntArray]:
    """Draw one epoch of Poisson lots: each record of the pool by its own coin of chance q, at every step.

    The draw is over the whole pool and then intersected with `included`, so the draws for one record do not depend on
    who else is in. A lot may be empty and is never truncated.

    Args:
        lots: Public facts.
        included: (n,) bool, the records that this model trains on.
        seed: The model's seed.
        epoch: Epoch number from 0.

    Returns:
        `lots.steps_per_epoch` sorted index arrays into the pool.
    """
    rng = stream(seed, "sampling", epoch)
    drawn = []
    for _ in range(lots.steps_per_epoch):
        # A binomial count and then a uniform subset of that size is the same law as n coins, at the cost of the lot.
        count = int(rng.binomial(len(included), lots.sampling_probability))
        lot = np.sort(rng.choice(len(included), size=count, replace=False, shuffle=False))
        drawn.append(lot[included[lot]].astype(np.int64))
    return drawn


def shuffled_lots(lots: Lots, included: BoolArray, *, seed: int, epoch: int) -> list[IntArray]:
    """Cut one shuffled pass over the members into lots of `batch_size`; the last one may be smaller.

    Args:
        lots: Public facts.
        included: (n,) bool, the records that this model trains on.
        seed: The model's seed.
        epoch: Epoch number from 0.

    Returns:
        ceil(members / batch_size) index arrays into the pool.
    """
    order = stream(seed, "sampling", epoch).permutation(np.flatnonzero(included))
    return [order[start : start + lots.batch_size] for start in range(0, len(order), lots.batch_size)]


def by_label(lots: list[IntArray], labels: list[IntArray], classes: int) -> list[IntArray]:
    """Cut every lot into one lot per label, in the order of the labels; some may be empty.

    Args:
        lots: Index arrays.
        labels: The labels of each lot's records.
        classes: Number of labels C.

    Returns:
        C index arrays for every lot.
    """
    return [lot[own == label] for lot, own in zip(lots, labels, strict=True) for label in range(classes)]
