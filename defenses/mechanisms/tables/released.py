"""Noisy tables as they are released, and the rows that anybody can draw from them."""

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

from defenses.guarantee import Guarantee, Neighboring, Unaccounted
from defenses.mechanisms.tables.consistency import Fitted, clipped, fit
from defenses.mechanisms.tables.decoded import frame_of
from defenses.mechanisms.tables.discrete_laplace import KeyStream, add_by_opendp, noise_scale
from defenses.mechanisms.tables.domains import Domain, domain_from_json, domain_to_json
from defenses.mechanisms.tables.margins import Margin, contingency, shape_of
from defenses.mechanisms.tables.tree import Step, draw, order_of
from defenses.modes import Mode
from defenses.records import IntArray

if TYPE_CHECKING:
    import pandas as pd

MOST_ROWS = 100_000_000
MOST_ESTIMATED = 10_000_000
"""More rows than this are drawn only on request: where noise drowns the counts, their total says nothing."""
NUMBER_RELEASED = (
    "as many rows come out as went in, which says their number exactly, and data sets that differ by a record added or "
    "removed differ in it: state the guarantee for a replaced record, or draw a number of rows that is public"
)
_SENSITIVITY = {Neighboring.ADD_REMOVE: 1, Neighboring.REPLACE_ONE: 2}


@dataclass(frozen=True, eq=False)
class Released:
    """Tables of counts with noise; everything in here is public.

    Attributes:
        domains: Column -> what it can hold.
        margins: Columns of each table.
        counts: Noisy counts of each table, integers.
        scale: Scale of the noise of each count.
        epsilon: What was asked for: of all tables together, or in literal mode of each.
        neighboring: For which neighbours it is private.
        mode: In which reading the tables were made, and how they are put together.
        size: Number of rows behind the tables where that is given away, else None.
        rows: How many rows are drawn unless another number is asked for; None: as many as there seem to have been.
        types: Column -> its type, JSON-ready, where rows are to come in the source's types.
    """

    domains: Mapping[str, Domain]
    margins: tuple[Margin, ...]
    counts: tuple[IntArray, ...]
    scale: Fraction
    epsilon: float
    neighboring: Neighboring
    mode: Mode
    size: int | None
    rows: int | None = None
    types: Mapping[str, Any] = field(default_factory=dict)

    @property
    def table_epsilon(self) -> float:
        """What each table costs, in nats, at delta 0."""
        return float(_SENSITIVITY[self.neighboring] / self.scale)

    def guarantee(self) -> Guarantee | Unaccounted:
        """Return what is proved: the sum over the tables, whatever was asked for."""
        if self.neighboring is Neighboring.ADD_REMOVE and self.size is not None:
            return Unaccounted(NUMBER_RELEASED)
        size = ("the number of rows is public",) if self.size is not None else ()
        return Guarantee(
            len(self.margins) * self.table_epsilon,
            0.0,
            self.neighboring,
            accountant=f"sum over {len(self.margins)} tables, integer Laplace noise of scale {float(self.scale):.6g}",
            assumptions=(
                "categories, bin edges, column types and the choice of tables are public",
                *size,
                "the noise is unknown to all, its seed too where it has one",
            ),
        )

    @functools.cached_property
    def fitted(self) -> Fitted:
        """The tables made consistent (repaired), or each clipped and normalised by itself (literal)."""
        if self.mode is Mode.LITERAL:
            return clipped(self.margins, self.counts, total=float(self.size or self.rows or 1))
        return fit(self.margins, self.counts, total=None if self.size is None else float(max(self.size, 1)))

    @functools.cached_property
    def order(self) -> tuple[Step, ...]:
        """In which order columns are drawn, each given at most one other."""
        return order_of(self.fitted, noise=float(self.scale), all_pairs=self.mode is Mode.LITERAL)

    def codes(self, rows: int | None, rng: np.random.Generator) -> dict[str, IntArray]:
        """Draw rows, as the codes of the cells that they fall in.

        Args:
            rows: How many, at least 1; None: `rows`, else the number behind the tables, as far as it is known.
            rng: Where the draws come from.

        Raises:
            ValueError: If so many rows cannot be drawn.
        """
        estimated = min(round(self.fitted.total), MOST_ESTIMATED)
        wanted = next(count for count in (rows, self.rows, self.size, estimated) if count is not None)
        if not 1 <= wanted <= MOST_ROWS:
            raise ValueError(f"{wanted} rows are to be drawn; give `rows`, a number in 1..{MOST_ROWS:,}")
        return draw(self.fitted, self.order, wanted, rng)

    def sample(self, rows: int | None = None, *, seed: int | None = None) -> "pd.DataFrame":
        """Draw synthetic rows in the source's columns and types; drawing more costs no privacy.

        Args:
            rows: How many, at least 1; None: as many as there were, where that is public, else as there seem to be.
            seed: Makes the draw repeatable; None takes the system's entropy.
        """
        rng = np.random.default_rng(seed)
        return frame_of(self.codes(rows, rng), self.domains, self.types, rng)

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON-ready data."""
        return {
            "columns": {name: domain_to_json(domain) for name, domain in self.domains.items()},
            "tables": [
                {"columns": list(margin), "counts": counts.tolist()}
                for margin, counts in zip(self.margins, self.counts, strict=True)
            ],
            "noise": {"scale": [self.scale.numerator, self.scale.denominator], "kind": "discrete Laplace"},
            "epsilon": self.epsilon,
            "neighboring": self.neighboring.name,
            "mode": str(self.mode),
            "size": self.size,
            "rows": self.rows,
            "types": dict(self.types),
        }

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> "Released":
        """Return the tables that `to_json` wrote."""
        return cls(
            domains={name: domain_from_json(each) for name, each in found["columns"].items()},
            margins=tuple(tuple(table["columns"]) for table in found["tables"]),
            counts=tuple(np.array(table["counts"], dtype=np.int64) for table in found["tables"]),
            scale=Fraction(*found["noise"]["scale"]),
            epsilon=found["epsilon"],
            neighboring=Neighboring[found["neighboring"]],
            mode=Mode(found["mode"]),
            size=found["size"],
            rows=found["rows"],
            types=found["types"],
        )


def release(
    codes: Mapping[str, IntArray],
    domains: Mapping[str, Domain],
    margins: Sequence[Margin],
    *,
    epsilon: float,
    neighboring: Neighboring,
    mode: Mode = Mode.REPAIRED,
    rows: int | None = None,
    key: bytes | None = None,
    types: Mapping[str, Any] | None = None,
) -> Released:
    """Count rows by every table, and add noise.

    A row is in one cell of each table: adding or removing it moves one count by 1 (L1 sensitivity 1), replacing it two
    (sensitivity 2). Of k tables each gets epsilon / k, in literal mode epsilon and noise as if the sensitivity were 1.

    Args:
        codes: Column -> (n,) codes of the cells.
        domains: Column -> what it can hold.
        margins: The tables.
        epsilon: Of all tables together; in literal mode, of each.
        neighboring: For which neighbours. ADD_REMOVE leaves the number of rows unknown, up to noise.
        mode: Reading.
        rows: How many rows will be drawn, a public number; None: as many as there are or seem to be.
        key: 16 secret bytes that the noise is a function of; None takes noise from opendp, which cannot be repeated.
        types: Column types, where rows are to be drawn as a data frame.

    Raises:
        ValueError: If epsilon or a size is out of range; nothing has been released then.
    """
    if not (epsilon > 0 and math.isfinite(epsilon)):
        raise ValueError(f"epsilon is {epsilon}; it must be above 0 and finite")
    sensitivity, share = _SENSITIVITY[neighboring], epsilon / len(margins)
    if mode is Mode.LITERAL:
        sensitivity, share = 1, epsilon
    scale = noise_scale(sensitivity, share)
    if rows is not None and not 1 <= rows <= MOST_ROWS:
        raise ValueError(f"rows is {rows}; give a number in 1..{MOST_ROWS:,}, or None")
    sizes = {name: domain.size for name, domain in domains.items()}
    shapes = [shape_of(margin, sizes) for margin in margins]
    true = [contingency(codes, margin, shape) for margin, shape in zip(margins, shapes, strict=True)]
    if key is None:
        # Table by table: opendp checks the price of each.
        noisy = np.concatenate(
            [add_by_opendp(each.ravel(), scale, sensitivity=sensitivity, epsilon=share) for each in true]
        )
    else:
        counts = np.concatenate([each.ravel() for each in true])
        noisy = counts + KeyStream(key).laplace(scale, counts.size)
    # The paper draws as many rows as there were; unless a public number is asked for, that gives theirs away.
    given_away = neighboring is Neighboring.REPLACE_ONE or (mode is Mode.LITERAL and rows is None)
    return Released(
        domains=dict(domains),
        margins=tuple(margins),
        counts=_split(noisy, shapes),
        scale=scale,
        epsilon=epsilon,
        neighboring=neighboring,
        mode=mode,
        size=len(next(iter(codes.values()))) if given_away else None,
        rows=rows,
        types=dict(types or {}),
    )


def _split(values: IntArray, shapes: Sequence[tuple[int, ...]]) -> tuple[IntArray, ...]:
    ends = np.cumsum([math.prod(shape) for shape in shapes])[:-1]
    return tuple(part.reshape(shape) for part, shape in zip(np.split(values, ends), shapes, strict=True))
