"""Local DP with a dynamic budget, as its text has it and repaired: what is claimed, proved, and shown by an attack.

Three attacks, each by an adversary who knows everything but which of two records was in (replace-one), in runs that
differ in nothing else. One coin decides each run; the attack and its threshold are fixed before any run. Literal, the
shown lower bound passes the claim three times; repaired, never. Run it with `python examples/broken/local_dp.py`; it
takes about a minute.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch

from auditor.datasets import load
from auditor.epsilon.bound import EpsilonBound
from auditor.epsilon.error_counts import bound_from_runs
from auditor.epsilon.one_run_bound import CLOPPER_PEARSON
from defenses.accounting import account_run
from defenses.architectures import Architecture
from defenses.defense import History
from defenses.engine.layers import Materialised, PerExample
from defenses.engine.probe import Reading, Step
from defenses.engine.training import Job, train
from defenses.guarantee import Neighboring, Unaccounted
from defenses.mechanisms.local.preparation import public_statistics
from defenses.mechanisms.local.privatize import Source, privatize
from defenses.modes import Mode
from defenses.recipe import Recipe
from defenses.records import BoolArray, Inclusion
from defenses.sampling import Lots
from defenses.schemes.local_dp import LocalDP
from defenses.updates import Tensors

EPSILON = 1.0
TIMES = 1000.0  # how often the clipping norm goes into the huge gradient
CONFIDENCE, ATTACKS = 0.95, 3
DIGITS = load("digits")
MEMBERS, PUBLIC = DIGITS.take(np.arange(61)), DIGITS.take(np.arange(1000, 1200))
LOTS = Lots(60, 10, 1)
RECIPE = Recipe(architecture=Architecture("mlp", {"hidden": []}), lots=LOTS)
Scores = npt.NDArray[np.float64]


def noised_record(scheme: LocalDP, coins: BoolArray, rng: np.random.Generator) -> Scores:
    """One record leaves its source: a white image or a black one. Score: which of the two the noise is centred on.

    Literal, each of 64 features is noised for the whole epsilon, so that the record pays 64 times.
    """
    source = Source(
        standardisation=public_statistics(PUBLIC.x.reshape(len(PUBLIC), -1)),
        epsilon=scheme.source_epsilon,
        bound=scheme.bound,
        mode=scheme.mode,
    )
    images = np.where(coins[:, None], 1.0, 0.0) * np.ones(64)
    noised, _ = privatize(images, source=source, rng=rng)
    (white, black), _ = privatize([[1.0] * 64, [0.0] * 64], source=replace(source, epsilon=None), rng=rng)
    nearer: Scores = (np.abs(noised - black) - np.abs(noised - white)).sum(axis=1)
    return nearer


class Swapped:
    """A probe: in the first lot is either a record whose gradient is huge, or one with the opposite gradient."""

    def __init__(self, coins: BoolArray, scheme: LocalDP) -> None:
        self.coins, self.size = coins, TIMES * scheme.max_grad_norm
        self.seen = np.zeros(len(coins))

    def canaries(self, parameters: Tensors) -> Mapping[str, PerExample]:
        """Return both gradients: one coordinate of the first parameter, up or down."""
        found = {name: torch.zeros(2, *value.shape) for name, value in parameters.items()}
        first = next(iter(found.values())).view(2, -1)
        first[0, 0], first[1, 0] = self.size, -self.size
        return {name: Materialised(value) for name, value in found.items()}

    def present(self, seed: int, step: Step) -> BoolArray:
        """Return one of the two in the first lot, and none later: each record takes part once."""
        return np.array([self.coins[seed], not self.coins[seed]]) & (step == (0, 0))

    def read(self, reading: Reading) -> None:
        """Keep what is left of the released sum without the known records."""
        if reading.step == (0, 0):
            name = next(iter(reading.sums))
            self.seen[reading.seed] = float((reading.released[name] - reading.sums[name]).flatten()[0])


def huge_gradient(scheme: LocalDP, coins: BoolArray, rng: np.random.Generator) -> Scores:
    """A training is watched: one record's gradient is 1,000 times as long as the noise is made for."""
    probe = Swapped(coins, scheme)
    included = np.ones((len(coins), len(MEMBERS)), dtype=np.bool_)
    job = Job(RECIPE, scheme, MEMBERS, public=PUBLIC)
    train(job, included, range(len(coins)), device="cpu", width=32, probe=probe)
    return probe.seen


def released_mean(scheme: LocalDP, coins: BoolArray, rng: np.random.Generator) -> Scores:
    """A model is released, and with it the mean that its records were standardised by; the first or last one was in."""
    included = np.ones((len(coins), len(MEMBERS)), dtype=np.bool_)
    included[:, 0], included[:, -1] = coins, ~coins
    job = Job(RECIPE, scheme, MEMBERS, public=PUBLIC)
    seeds = rng.integers(2**62, size=len(coins)).tolist()
    shift = train(job, included, seeds, device="cpu", width=32).parameters["0.shift"].flatten(1).double().numpy()
    with_first, with_last = (np.delete(MEMBERS.x, out, axis=0).mean(0).flatten() for out in (-1, 0))
    towards: Scores = (shift - (with_first + with_last) / 2) @ (with_first - with_last)
    return towards


SOURCE = LocalDP(source_epsilon=EPSILON)
GRADIENTS = LocalDP(gradient_epsilon=EPSILON, alpha=0.0)
Attack = Callable[[LocalDP, BoolArray, np.random.Generator], Scores]
SHOWN: dict[str, tuple[LocalDP, Attack, int]] = {  # with how many times the runs that trainings get
    "one noised record": (SOURCE, noised_record, 10),
    "noisy sums of a training": (GRADIENTS, huge_gradient, 1),
    "a released model": (GRADIENTS, released_mean, 1),
}


def shown(name: str, mode: Mode, runs: int, seed: int = 0) -> tuple[LocalDP, EpsilonBound]:
    """Attack many runs and return the scheme with the lower bound on its epsilon, at 95% over all three attacks."""
    scheme, attack, times = SHOWN[name]
    scheme = replace(scheme, mode=mode)
    rng = np.random.default_rng(seed)
    coins = rng.random(runs * times) < 0.5
    bound = bound_from_runs(
        attack(scheme, coins, rng),
        coins,
        method=CLOPPER_PEARSON,
        inclusion=Inclusion.PAIRED_RUNS,
        delta=0.0,
        confidence=CONFIDENCE,
        threshold=0.0,
        comparisons=ATTACKS,
        neighboring=Neighboring.REPLACE_ONE,
    )
    return scheme, bound


def main(runs: int = 400) -> None:
    """Print claimed, proved and shown epsilon for every attack in both modes."""
    print(f"{'seen':<26}{'mode':<10}{'claimed':>8}{'proved':>13}{'shown':>7}{'ceiling':>9}")
    reasons = []
    for name in SHOWN:
        for mode in Mode:
            scheme, bound = shown(name, mode, runs)
            claimed, proved = scheme.claimed(History(LOTS)), account_run(scheme, History(LOTS), delta=0.0)
            if isinstance(proved, Unaccounted):
                reasons.append(f"{name}: {proved.reason}")
            figure = "unaccounted" if isinstance(proved, Unaccounted) else f"{proved.epsilon:.2f}"
            verdict = "  <- the claim is contradicted" if bound.lower > claimed.epsilon else ""
            print(
                f"{name:<26}{mode:<10}{claimed.epsilon:>8.2f}{figure:>13}{bound.lower:>7.2f}{bound.ceiling:>9.2f}{verdict}"
            )
    print(f"\nshown: lower bounds at {CONFIDENCE:.0%} confidence over all {ATTACKS} attacks, replace-one. Unaccounted:")
    print("\n".join(f"- {reason}." for reason in reasons))


if __name__ == "__main__":
    main()
