"""P3's tables, with epsilon 1 on each of twelve: what is claimed, what is proved, and what the tables themselves show.

Run anywhere: python examples/broken/marginals.py [releases]
It takes a minute or two. Two data sets that differ in one record are told apart by their released tables alone.
"""

import sys

from auditor.reproductions.tables_told_apart import shown_epsilon, worst_neighbours
from defenses.accounting import account_run
from defenses.defense import History
from defenses.mechanisms.tables import Ways
from defenses.modes import Mode
from defenses.randomness import stream
from defenses.sampling import Lots
from defenses.schemes.marginals import Marginals

CONFIDENCE = 0.95


def main(releases: int = 4_000) -> dict[str, tuple[float, float, float]]:
    """Print claimed, proved and shown epsilon of both modes, and return them."""
    found = {}
    without, with_it = worst_neighbours(columns=12)
    print(f"{'mode':<10} {'claimed':>8} {'proved':>8} {'shown':>8} {'ceiling':>8}   (one record added or removed)")
    for mode in Mode:
        # A number of rows that is public, or else literal would give the true one away, and nothing could be proved.
        scheme = Marginals(epsilon=1.0, mode=mode, tables=Ways.ONE, public_size=False, rows=20, bins=2)
        history = History(Lots(20, 20, 1), scheme.prepare(without, stream(0, "facts")).facts)
        proved = account_run(scheme, history, delta=0.0)
        claimed = scheme.claimed(history).epsilon
        shown = shown_epsilon(scheme, without, with_it, releases=releases, seed=1, confidence=CONFIDENCE)
        found[str(mode)] = (claimed, proved.epsilon, shown.lower)
        print(f"{mode:<10} {claimed:>8.3g} {proved.epsilon:>8.3g} {shown.lower:>8.3g} {shown.ceiling:>8.3g}", end="   ")
        print("the claim is contradicted" if shown.lower > claimed else "nothing contradicts the claim")
    print(f"Shown: a lower bound at {CONFIDENCE:.0%} confidence from {releases:,} releases per mode.")
    return found


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
