"""Layer-wise noise that is not scaled to the joint norm: an audit of single steps that passes the paper's claim.

Each of the L = 3 layers of a small network is clipped at C_l = C / sqrt(L). The literal scheme adds noise of sigma C_l
to each, as if a record were seen in one layer alone; it is seen in all of them, so the step has multiplier
sigma / sqrt(L). Canaries that are gradients of length C_l in every layer join each lot by a fair coin, and the released
sums are looked at along them. The setting is chosen such that the claim (epsilon 0.5 at delta 1e-5) would be true of
DP-SGD at sigma 8.

Run from the folder of the project: python examples/broken/layerwise_dp.py   (seconds on two cores)
"""

from dataclasses import dataclass

import numpy as np

from auditor.datasets import load
from auditor.white_box.step_audit import WhiteBoxOptions, audit_steps
from defenses.accounting import account, account_run
from defenses.architectures import Architecture
from defenses.defense import History, Job
from defenses.guarantee import Guarantee
from defenses.modes import Mode
from defenses.recipe import Recipe
from defenses.sampling import Lots
from defenses.schemes.dp_sgd import DPSGD
from defenses.schemes.layerwise_dp import LayerwiseDP

SIGMA, DELTA, CONFIDENCE, CANARIES = 8.0, 1e-5, 0.95, 512
LOTS = Lots(expected_members=1000, batch_size=100, epochs=10)
NETWORK = Architecture("mlp", {"hidden": [64, 64]})
LAYERS = 3


@dataclass(frozen=True)
class Row:
    """The three epsilons of one mode, and what DP-SGD's accounting at sigma would say of it."""

    mode: Mode
    claimed: float
    at_sigma: float
    proved: float
    shown: float


def measure(mode: Mode, *, seed: int = 0) -> Row:
    """Train once on digits, with canaries, and price what their steps show."""
    pool = load("digits")
    records = pool.take(np.random.default_rng(0).permutation(len(pool))[: LOTS.expected_members])
    # Shares tell the scheme how many layers there are before it has seen the network.
    scheme = LayerwiseDP(mode=mode, noise_multiplier=SIGMA, delta=DELTA, clip_shares=(1 / LAYERS,) * LAYERS)
    job = Job(Recipe(architecture=NETWORK, lots=LOTS, learning_rate=0.1), scheme, records)
    seen = audit_steps(job, seed=seed, delta=DELTA, confidence=CONFIDENCE, watch=WhiteBoxOptions(CANARIES))
    history = History(LOTS)
    at_sigma = account(DPSGD(noise_multiplier=SIGMA).event(history), delta=DELTA)
    proved = account_run(scheme, history, delta=DELTA)
    assert isinstance(at_sigma, Guarantee) and isinstance(proved, Guarantee)  # noqa: PT018
    claimed = LayerwiseDP(mode=Mode.LITERAL, noise_multiplier=SIGMA).claimed(history).epsilon
    return Row(mode, claimed, at_sigma.epsilon, proved.epsilon, seen.gaussian.lower)


def main() -> None:
    """Print one line for each mode."""
    print(f"sigma {SIGMA:g}, {LAYERS} layers, {LOTS.steps} steps at q = {LOTS.sampling_probability:g}, delta {DELTA:g}")
    print(
        f"{'mode':<10}{'claimed':>9}{'DP-SGD at sigma':>17}{'proved':>9}{'shown':>8}  (at {CONFIDENCE:.0%} confidence)"
    )
    for mode in Mode:
        row = measure(mode)
        verdict = "the claim is contradicted" if row.shown > row.claimed else "no contradiction"
        print(f"{mode.value:<10}{row.claimed:>9.2f}{row.at_sigma:>17.3f}{row.proved:>9.3f}{row.shown:>8.3f}  {verdict}")
    print("Shown is implied by single steps: sampling rate, number of steps and sampler are taken on trust.")


if __name__ == "__main__":
    main()
