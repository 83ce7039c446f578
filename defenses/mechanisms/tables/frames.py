"""Synthetic tables from a data frame: declare each column's domain, release noisy tables, draw rows.

release = release_tables(frame, columns={"age": whole_numbers(17, 90), "sex": Categories("f", "m")}, epsilon=1.0)
synthetic = release.sample()
"""

import difflib
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from defenses.guarantee import Neighboring
from defenses.mechanisms.tables.domains import Bins, Categories, Domain
from defenses.mechanisms.tables.margins import Ways, margins_of
from defenses.mechanisms.tables.released import Released, release
from defenses.modes import Mode
from defenses.records import IntArray

if TYPE_CHECKING:
    import pandas as pd


def release_tables(
    frame: "pd.DataFrame",
    *,
    columns: Mapping[str, Domain],
    epsilon: float,
    tables: Ways | Sequence[Sequence[str]] = Ways.TWO,
    neighboring: Neighboring = Neighboring.REPLACE_ONE,
    label: str | None = None,
    rows: int | None = None,
    mode: Mode = Mode.REPAIRED,
    seed: int | None = None,
) -> Released:
    """Release noisy tables of a data frame, from which synthetic rows are drawn with `.sample()`.

    Every count gets integer Laplace noise of opendp; the budget is split evenly over the tables. What is done with the
    noisy tables afterwards (agreement, no cells below zero, drawing of rows) costs nothing.

    Args:
        frame: The rows. Its column names and types are taken as public.
        columns: Column -> its public domain, for every column.
        epsilon: Budget of all tables together in nats, above 0; in literal mode of each table.
        tables: Which tables: `Ways`, or a list of them, each one or two column names.
        neighboring: REPLACE_ONE: the number of rows is public. ADD_REMOVE: it is known up to noise only.
        label: The column that `Ways.WITH_LABEL` pairs the others with.
        rows: How many rows are drawn by default, a public number; None: as many as there are or seem to be.
        mode: `literal` spends epsilon on each table, as the paper does; `.guarantee()` tells what that amounts to.
        seed: Makes the noise repeatable, for tests and audits only: who knows it can take the noise away again.

    Returns:
        The tables, with `.sample()`, `.guarantee()` and `.to_json()`.

    Raises:
        ValueError: If a column has no domain, or holds what its domain does not; or an argument is out of range.
            Nothing has been released then.

    Examples:
        >>> import pandas as pd
        >>> frame = pd.DataFrame({"age": [31, 45, 45], "sex": ["f", "m", "f"]})
        >>> domains = {"age": Bins((0, 40, 120)), "sex": Categories("f", "m", missing=False)}
        >>> release_tables(frame, columns=domains, epsilon=1.0, seed=1).sample(seed=1).dtypes.equals(frame.dtypes)
        True

    Source: Yang et al. 2024, "AI-Driven Anonymization", sections 3.1 to 3.4; repaired as the package says.
    """
    domains, codes = codes_of(frame, columns)
    margins = margins_of(tables, list(domains), label=label)
    key = None
    if seed is not None:
        if seed < 0:
            raise ValueError(f"seed is {seed}; a seed is a non-negative integer")
        key = hashlib.blake2b(f"tables {seed}".encode(), digest_size=16).digest()
    types = {str(name): _type_to_json(dtype) for name, dtype in frame.dtypes.items()}
    return release(
        codes,
        domains,
        margins,
        epsilon=epsilon,
        neighboring=neighboring,
        mode=mode,
        rows=rows,
        key=key,
        types=types,
    )


def codes_of(frame: "pd.DataFrame", columns: Mapping[str, Domain]) -> tuple[dict[str, Domain], dict[str, IntArray]]:
    """Return each column's domain, in the frame's order and with `missing` decided, and its cells' codes.

    Raises:
        ValueError: If a column cannot be coded by its domain.
    """
    names = list(frame.columns)
    if not names or not len(frame):
        raise ValueError(f"the table has {len(frame)} rows and {len(names)} columns; give at least one of each")
    if any(not isinstance(name, str) for name in names) or len(set(names)) < len(names):
        raise ValueError(f"columns are {names}; their names must be text, each once")
    for name in columns:
        if name not in names:
            close = difflib.get_close_matches(name, names, n=1)
            meant = f" (did you mean {close[0]!r}?)" if close else ""
            raise ValueError(f"columns names {name!r}, which the table does not have{meant}; it has {names}")
    domains = {name: _domain(frame[name], columns.get(name), name) for name in names}
    return domains, {name: _codes(frame[name], domain, name) for name, domain in domains.items()}


def _domain(values: "pd.Series[Any]", domain: Domain | None, name: str) -> Domain:
    """Return a column's domain with everything decided that its type decides."""
    import pandas as pd

    numbers = pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)
    if not isinstance(domain, Categories | Bins):
        wanted = "bin edges, such as Bins((0, 10, 20))" if numbers else "categories, such as Categories('a', 'b')"
        raise ValueError(f"column {name!r} has no public domain ({domain!r} was given); give its {wanted}, or drop it")
    empty = isinstance(values.dtype, np.dtype) and values.dtype.kind in "iub"  # these types hold no empty cell
    missing = (not empty) if domain.missing is None else domain.missing
    if missing and empty:
        raise ValueError(f"column {name!r} of type {values.dtype} cannot hold an empty cell; leave `missing` out")
    if isinstance(domain, Bins):
        if not numbers:
            raise ValueError(f"column {name!r} of type {values.dtype} holds no numbers; give Categories, not Bins")
        whole = domain.whole or pd.api.types.is_integer_dtype(values)
        if values.dtype.kind in "iu" and hasattr(values.dtype, "itemsize"):
            kind = np.iinfo(f"{values.dtype.kind}{values.dtype.itemsize}")
            if domain.edges[0] < kind.min or domain.edges[-1] > float(kind.max) + 1:
                raise ValueError(f"column {name!r} of type {values.dtype} cannot hold its edges {domain.edges}")
        domain = replace(domain, whole=whole)
    elif isinstance(values.dtype, pd.CategoricalDtype):
        strange = [value for value in domain.values if value not in values.dtype.categories]
        if strange:
            raise ValueError(f"column {name!r} has no category {strange[0]!r} in its type; give the column that type")
    if isinstance(domain, Categories):
        return Categories(*domain.values, missing=missing)
    return replace(domain, missing=missing)


def _codes(values: "pd.Series[Any]", domain: Domain, name: str) -> IntArray:
    import pandas as pd

    gaps = values.isna().to_numpy(dtype=np.bool_)
    if gaps.all():
        raise ValueError(f"column {name!r} holds nothing at all; drop it, or fill it")
    if gaps.any() and not domain.missing:
        row = int(np.flatnonzero(gaps)[0])
        raise ValueError(f"column {name!r} is empty in row {row} ({int(gaps.sum())} such rows); declare missing=True")
    if isinstance(domain, Bins):
        return domain.codes(values.to_numpy(dtype=np.float64, na_value=np.nan))
    known = pd.Index(np.array([*domain.values, None], dtype=object)[:-1], dtype=object)
    found: IntArray = known.get_indexer(pd.Index(values.astype(object), dtype=object)).astype(np.int64)
    found[gaps] = len(domain.values)
    if (found < 0).any():
        row = int(np.flatnonzero(found < 0)[0])
        raise ValueError(
            f"column {name!r} holds {values.iloc[row]!r} in row {row} ({int((found < 0).sum())} such rows); its "
            f"categories are {list(domain.values[:12])}: correct the rows, or add it to the public domain"
        )
    return found


def _type_to_json(dtype: Any) -> Any:
    import pandas as pd

    if isinstance(dtype, pd.CategoricalDtype):
        return {"categories": dtype.categories.tolist(), "ordered": bool(dtype.ordered)}
    if isinstance(dtype, pd.StringDtype) and dtype.na_value is pd.NA:
        return f"string[{dtype.storage}]"
    return str(dtype)
