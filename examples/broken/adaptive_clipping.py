"""A record that literal adaptive clipping (P5) exposes, and that the repaired one hides; about a minute on two cores.

The literal mode puts noise on the records of one label only, the one with the smallest gradients. Here a digit of
another label is in one half of 2,000 runs and not in the other. The adversary is the one that DP-SGD's proof is about:
it knows the other records and the weights, and sees every sum that is released, but not who is in. The direction in
which the record's gradient leaves the span of all others' tells it apart.

Run: python examples/broken/adaptive_clipping.py
"""

import sys
from dataclasses import dataclass, field, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch.func import functional_call, grad, vmap

from auditor.datasets import load
from auditor.epsilon.error_counts import bound_from_runs
from auditor.epsilon.one_run_bound import CLOPPER_PEARSON
from auditor.verdicts.judge import judge_claim
from defenses.accounting import account_run
from defenses.architectures import Architecture
from defenses.defense import History, Job
from defenses.engine.layers import Materialised
from defenses.engine.training import train
from defenses.ensemble import Ensemble
from defenses.guarantee import Guarantee
from defenses.modes import Mode
from defenses.recipe import Recipe
from defenses.records import Inclusion, Records
from defenses.sampling import Lots
from defenses.schemes.adaptive_clipping import AdaptiveClipping
from defenses.schemes.none import NoDefense

NETWORK = Architecture("mlp", {"hidden": []})
DELTA, EPSILON, RECORDS, ROUNDS = 1e-5, 2.0, 50, 3


@dataclass
class Watcher:
    """Adds nothing, and reads how many deviations of its noise every release is long in one direction.

    Attributes:
        direction: (d,) of length 1, at right angles to the other records' gradients.
        empty: (d, e), directions of length 1 in which no record has a gradient: what is there is noise.
        label: Label of the record, whose steps are read; None where a step holds all labels.
    """

    direction: torch.Tensor
    empty: torch.Tensor
    label: int | None
    scores: dict[int, float] = field(default_factory=dict)

    def canaries(self, parameters):
        """Return one gradient that never joins."""
        return {name: Materialised(torch.zeros_like(value)[None]) for name, value in parameters.items()}

    def present(self, seed, step):
        """Return that nothing is added."""
        return np.array([False])

    def read(self, reading):
        """Add what a release of the record's group shows to the run's score."""
        if self.label is not None and (reading.step[0] == 0 or reading.step[1] != self.label):
            return  # another label's step, or the first round, when literally every label has noise
        released = torch.cat([value.flatten() for value in reading.released.values()])
        # Where there is no noise, rounding is all there is in the empty directions; it is not to be mistaken for it.
        noise = (released @ self.empty).square().mean().sqrt() + 1e-4 * released.norm()
        self.scores[reading.seed] = self.scores.get(reading.seed, 0.0) + float(released @ self.direction / noise)


def gradients_of(model: Ensemble, records: Records) -> torch.Tensor:
    """Return every record's gradient (n, d) at these weights."""
    module, weights = model.one(0), {name: value[0] for name, value in model.parameters.items()}

    def loss(weights, x, y):
        return F.cross_entropy(functional_call(module, weights, (x[None],)), y[None], label_smoothing=0.1)

    found = vmap(grad(loss), in_dims=(None, 0, 0))(weights, torch.from_numpy(records.x), torch.from_numpy(records.y))
    return torch.cat([value.flatten(1) for value in found.values()], dim=1)


def audited(mode: Mode, runs: int) -> tuple[str, bool]:
    """Return what is claimed, proved and shown of a mode, in words, and whether the claim is contradicted."""
    pool, lots = load("digits"), Lots(RECORDS, RECORDS, ROUNDS)
    plain = Recipe(architecture=NETWORK, lots=Lots(500, 50, 5), learning_rate=0.1)
    others = pool.take(np.arange(1000, 1500))
    weights = train(Job(plain, NoDefense(), others), np.ones((1, 500), bool), [1], device="cpu")

    # Audits may choose the learning rate: with a tiny one the weights stay where the adversary knows the gradients.
    records = pool.take(np.arange(RECORDS))
    scheme = AdaptiveClipping(mode=mode, labels=records.classes, epsilon=EPSILON, max_grad_norm=0.1, delta=DELTA)
    recipe = replace(plain, lots=lots, learning_rate=1e-12)
    job = Job(recipe, scheme, records, initial=weights)

    gradients = gradients_of(weights, records).double()
    target = int(gradients.norm(dim=1).argmax())
    rest = torch.cat([gradients[:target], gradients[target + 1 :]])
    every = torch.linalg.svd(gradients, full_matrices=True)[2]
    span = torch.linalg.svd(rest, full_matrices=False)[2]
    outside = gradients[target] - span.T @ (span @ gradients[target])
    share = float(outside.norm() / gradients[target].norm())
    label = int(records.y[target]) if mode is Mode.LITERAL else None
    empty = every[RECORDS:].T.float()
    watcher = Watcher((outside / outside.norm()).float(), empty, label)

    included = np.ones((2 * runs, RECORDS), dtype=bool)
    included[::2, target] = False
    seeds = list(range(10, 10 + 2 * runs))
    train(job, included, seeds, device="cpu", width=100, probe=watcher)
    expected = share / scheme.noises(lots)[0] * (ROUNDS if label is None else ROUNDS - 1)
    bound = bound_from_runs(
        [watcher.scores[seed] for seed in seeds],
        included[:, target],
        method=CLOPPER_PEARSON,
        inclusion=Inclusion.PAIRED_RUNS,
        delta=DELTA,
        confidence=0.95,
        threshold=expected / 2,  # midway between the score without the record, 0, and with it
    )
    history = History(lots)
    claimed, proved = scheme.claimed(history), account_run(scheme, history, delta=DELTA)
    verdict = judge_claim(bound, claimed)
    said = (
        f"epsilon {proved.epsilon:.3g} at delta {DELTA:g}"
        if isinstance(proved, Guarantee)
        else f"unaccounted: {proved.reason}"
    )
    words = (
        f"{mode.value}\n  claimed  epsilon {claimed.epsilon:.3g} at delta {DELTA:g}\n  proved   {said}\n"
        f"  shown    epsilon of at least {bound.lower:.2f} at 95% confidence, of {bound.ceiling:.2f} that could be\n"
        f"  {verdict.sentence}"
    )
    return words, bound.lower > claimed.epsilon


def main() -> int:
    """Audit both modes; 0 if the literal claim is contradicted and the repaired one is not."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    verdicts = {}
    for mode in Mode:
        words, verdicts[mode] = audited(mode, runs)
        print(words)
    return 0 if verdicts == {Mode.LITERAL: True, Mode.REPAIRED: False} else 1


if __name__ == "__main__":
    sys.exit(main())
