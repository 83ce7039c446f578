"""Encoded records (one-hot blocks and scaled numbers) as columns of codes, and back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from defenses.mechanisms.tables.domains import Bins, Categories, Domain, equal_bins
from defenses.records import Column, IntArray, Records, Table

# A number was rounded to float32 when it was encoded; without this share of the range, 38 might fall among the 37s.
_ROUNDING = 2.0**-24


@dataclass(frozen=True)
class Layout:
    """How encoded records are read as columns.

    Attributes:
        columns: Every column of features, those that nobody declared included.
        label: Name of the label column.
        domains: Column -> what it can hold; the label comes last.
        raw: Columns that nobody declared: their features are not scaled.
        width: Number of features.
        public: Whether all domains are public.
    """

    columns: tuple[Column, ...]
    label: str
    domains: Mapping[str, Domain]
    raw: frozenset[str]
    width: int
    public: bool

    def codes(self, records: Records) -> dict[str, IntArray]:
        """Return column -> (n,) codes, the label among them."""
        found: dict[str, IntArray] = {}
        for column in self.columns:
            domain = self.domains[column.name]
            block = records.x[:, column.start : column.start + column.width]
            if isinstance(domain, Bins):
                numbers = block[:, 0].astype(np.float64)
                if column.name not in self.raw:
                    numbers = column.low + (numbers + _ROUNDING) * (column.high - column.low)
                found[column.name] = domain.codes(numbers)
            else:
                found[column.name] = block.argmax(axis=1).astype(np.int64)
        found[self.label] = records.y
        return found

    def records(self, codes: Mapping[str, IntArray], like: Records, rng: np.random.Generator) -> Records:
        """Return records with these codes; a number is drawn from its bin."""
        y = codes[self.label]
        x = np.zeros((len(y), self.width), dtype=np.float32)
        rows = np.arange(len(y))
        for column in self.columns:
            domain = self.domains[column.name]
            if isinstance(domain, Bins):
                numbers = domain.numbers(codes[column.name], rng)
                if column.name not in self.raw:
                    # Edges may reach beyond the range, and a column without any width is encoded as 0.
                    numbers = np.clip(numbers, column.low, column.high) - column.low
                    numbers /= (column.high - column.low) or 1.0
                x[:, column.start] = numbers
            else:
                x[rows, column.start + codes[column.name]] = 1
        return replace(like, x=x, y=y, owner=None, cluster=None, name=f"synthetic rows like {like.name}")


def layout_of(
    records: Records, *, bins: int, edges: Mapping[str, Sequence[float]], feature_range: tuple[float, float]
) -> Layout:
    """Return how records of a table are read; only their encoding is looked at, never a value.

    Args:
        records: Rows of a table, kind `Table`.
        bins: Equal bins of each number without edges.
        edges: Numeric column -> bin edges, in the source's units.
        feature_range: Range of features that no column was declared for; they are called feature_<number>.

    Raises:
        ValueError: If edges name a column that is not there, or that is not numeric; or a name occurs twice.
    """
    kind = records.kind
    if not isinstance(kind, Table) or records.x.ndim != 2:
        raise ValueError(f"{records.name} holds records of shape {records.shape}; rows of a table are needed")
    width = records.x.shape[1]
    taken = {feature for column in kind.columns for feature in range(column.start, column.start + column.width)}
    low, high = feature_range
    others = [Column(f"feature_{at}", (), low, high, at, 1) for at in range(width) if at not in taken]
    columns = (*kind.columns, *others)
    names = [*(column.name for column in columns), kind.label]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ValueError(f"two columns are called {twice[0]!r}; rename one")
    numeric = [column.name for column in columns if not column.categories]
    for name in edges:
        if name not in numeric:
            raise ValueError(f"edges name {name!r}, which is no numeric column; those are {numeric}")
    domains: dict[str, Domain] = {}
    for column in columns:
        if column.categories:
            domains[column.name] = Categories(*column.categories, missing=False)
        elif column.name in edges:
            domains[column.name] = Bins(tuple(edges[column.name]), missing=False)
        elif column.high > column.low:
            domains[column.name] = equal_bins(column.low, column.high, bins, missing=False)
        else:
            domains[column.name] = Bins((column.low, column.low + 1), missing=False)
    domains[kind.label] = Categories(*(kind.classes or range(records.classes)), missing=False)
    raw = frozenset(column.name for column in others)
    return Layout(columns, kind.label, domains, raw, width, kind.public_domain)
