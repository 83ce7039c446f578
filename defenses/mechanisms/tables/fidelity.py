"""How far synthetic rows are from real ones, table by table. It reads the real rows and is itself not private."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from defenses.mechanisms.tables.domains import Domain
from defenses.mechanisms.tables.frames import codes_of
from defenses.mechanisms.tables.margins import Margin, Ways, contingency, margins_of, shape_of
from defenses.records import IntArray

if TYPE_CHECKING:
    import pandas as pd


def total_variations(
    real: "pd.DataFrame",
    synthetic: "pd.DataFrame",
    *,
    columns: Mapping[str, Domain],
    tables: Ways | Sequence[Sequence[str]] = Ways.TWO,
    label: str | None = None,
) -> dict[Margin, float]:
    """Return the total-variation distance of each table: half the sum over cells of the difference of shares, 0 to 1.

    Args:
        real: Real rows; what is found is not covered by any epsilon.
        synthetic: Synthetic rows of the same columns and types.
        columns: Column -> domain, as for `release_tables`.
        tables: Which tables are compared.
        label: The column that `Ways.WITH_LABEL` pairs the others with.

    Raises:
        ValueError: If a column cannot be coded by its domain.
    """
    domains, one = codes_of(real, columns)
    _, other = codes_of(synthetic, columns)
    return code_distances(one, other, domains, margins_of(tables, list(domains), label=label))


def code_distances(
    one: Mapping[str, IntArray],
    other: Mapping[str, IntArray],
    domains: Mapping[str, Domain],
    margins: Sequence[Margin],
) -> dict[Margin, float]:
    """Return the total-variation distance of each table between two sets of coded rows."""
    sizes = {name: domain.size for name, domain in domains.items()}
    found = {}
    for margin in margins:
        shape = shape_of(margin, sizes)
        shares = [contingency(codes, margin, shape) / len(codes[margin[0]]) for codes in (one, other)]
        found[margin] = float(0.5 * np.abs(shares[0] - shares[1]).sum())
    return found
