"""A lower bound on what released tables cost: two neighbouring data sets are told apart by them, again and again."""

import numpy as np

from auditor.epsilon.bound import EpsilonBound
from auditor.epsilon.error_counts import bound_from_runs
from auditor.epsilon.one_run_bound import CLOPPER_PEARSON
from defenses.mechanisms.tables.margins import contingency
from defenses.randomness import stream
from defenses.records import Inclusion, Records, Table
from defenses.schemes.marginals import Marginals, released_tables


def shown_epsilon(
    scheme: Marginals, without: Records, with_it: Records, *, releases: int, seed: int, confidence: float = 0.95
) -> EpsilonBound:
    """Bound a scheme's epsilon from below by its released tables alone.

    Half of the releases are of one data set, half of its neighbour. Each is scored by the logarithm of the likelihood
    ratio of its noisy tables, which an adversary can compute who knows both data sets and not which one it was. Half of
    the releases of each side chooses the threshold, the others give the bound (Clopper-Pearson on both error rates).

    Args:
        scheme: The scheme, run as it stands.
        without: Records.
        with_it: The same with one record more, or one replaced, as the scheme's relation has it.
        releases: How many in all, at least 4; of 4,000 the 2,000 that count can show up to 5.6 nats.
        seed: Root of all randomness.
        confidence: In (0, 1).
    """
    sides, layout = (without, with_it), scheme.layout(without)
    codes = [layout.codes(records) for records in sides]
    included = np.arange(releases) % 2 == 1
    scores = np.zeros(releases)
    for at, there in enumerate(included):
        facts = scheme.prepare(sides[int(there)], stream(seed, "release", at)).facts
        released = released_tables(facts)
        for margin, table in zip(released.margins, released.counts, strict=True):
            far, near = (np.abs(table - contingency(each, margin, table.shape)).sum() for each in codes)
            scores[at] += (far - near) / float(released.scale)
    return bound_from_runs(
        scores,
        included,
        method=CLOPPER_PEARSON,
        inclusion=Inclusion.PAIRED_RUNS,
        delta=0.0,
        confidence=confidence,
        rng=stream(seed, "halves"),
        neighboring=scheme.neighboring,
    )


def worst_neighbours(*, columns: int = 12, records: int = 20, replaced: bool = False) -> tuple[Records, Records]:
    """Return two small data sets of yes-or-no columns that differ in one record, which is unlike all others.

    Args:
        columns: Number of columns, the label included, at least 2.
        records: Records of the first data set, at least 2.
        replaced: Whether that record takes another's place; else it is added.
    """
    x = np.zeros((records + 1, columns - 1), dtype=np.float32)
    y = np.zeros(records + 1, dtype=np.int64)
    x[-1], y[-1] = 1, 1
    pool = Records(x, y, 2, Table((), "label", ()), name="worst neighbours")
    return pool.take(np.arange(records)), pool.take(np.arange(int(replaced), records + 1))
