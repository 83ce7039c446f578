"""Codes of columns back into values: a data frame in the source's columns and types."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from defenses.mechanisms.tables.domains import Bins, Domain
from defenses.records import IntArray

if TYPE_CHECKING:
    import pandas as pd


def frame_of(
    codes: Mapping[str, IntArray], domains: Mapping[str, Domain], types: Mapping[str, Any], rng: np.random.Generator
) -> "pd.DataFrame":
    """Turn codes back into values: a category, or a number drawn from its bin.

    Args:
        codes: Column -> (rows,) codes.
        domains: Columns in the order wanted.
        types: Column -> type, from `to_json`; a column without one gets what fits its values.
        rng: Draws the numbers.
    """
    import pandas as pd

    found = {}
    for name, domain in domains.items():
        if isinstance(domain, Bins):
            column = pd.Series(domain.numbers(codes[name], rng))
            found[name] = column.astype(_type_from_json(types[name])) if name in types else column
        else:
            held = np.empty(len(domain.values) + 1, dtype=object)
            held[:-1], held[-1] = domain.values, np.nan
            values = held[codes[name]]
            found[name] = pd.Series(values, dtype=_type_from_json(types[name]) if name in types else None)
    return pd.DataFrame(found)


def _type_from_json(found: Any) -> Any:
    import pandas as pd

    if isinstance(found, str):
        return pd.api.types.pandas_dtype(found)
    return pd.CategoricalDtype(found["categories"], ordered=found["ordered"])
