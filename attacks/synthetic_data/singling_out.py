"""Singling out: conditions, made from released rows, that one person of the training data and nobody else meets."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from attacks.capabilities import Capability
from attacks.protocol import Attack, Predicates
from attacks.threat_model import ThreatModel
from attacks.view import View
from defenses.errors import NotApplicableError
from defenses.progress import OnProgress, silent
from defenses.records import BoolArray, IntArray, Records, Table

Float64Array = npt.NDArray[np.float64]

AT_MOST, EQUAL, AT_LEAST = -1, 0, 1
_BATCH = 256
_TRIES = 50  # conditions that are tried for each one that is wanted, before it is given up


@dataclass(frozen=True)
class Conditions:
    """Conditions of which each joins k comparisons, one for each of its columns.

    Attributes:
        columns: (p, k) int64, which cells are compared; the label is the last cell.
        senses: (p, k) int64, `AT_MOST`, `EQUAL` or `AT_LEAST`.
        values: (p, k) float64, what they are compared with.
    """

    columns: IntArray
    senses: IntArray
    values: Float64Array

    def __len__(self) -> int:
        return len(self.columns)

    def take(self, which: IntArray) -> "Conditions":
        """Return some of the conditions, in that order."""
        return Conditions(self.columns[which], self.senses[which], self.values[which])

    def met_by(self, cells: Float64Array) -> BoolArray:
        """Return which rows (n, C), as `cells_of` gives them, meet each condition, (p, n)."""
        met = np.ones((len(self), len(cells)), dtype=np.bool_)
        for column, sense, value in zip(self.columns.T, self.senses.T, self.values.T, strict=True):
            above = np.sign(cells.T[column] - value[:, None])
            met &= (above == 0) | ((above == sense[:, None]) & (sense[:, None] != EQUAL))
        return met


def cells_of(records: Records) -> Float64Array:
    """Return what each column of each record holds, and its label, (n, C): a number, or the code of a category.

    Raises:
        NotApplicableError: If records have no columns.
    """
    columns = records.kind.columns if isinstance(records.kind, Table) else ()
    if not columns:
        raise NotApplicableError("is about columns of a table, and records of this audit have none")
    blocks = ((column, records.x[:, column.start : column.start + column.width]) for column in columns)
    held = [block.argmax(axis=1) if column.categories else block[:, 0] for column, block in blocks]
    return np.column_stack([*held, records.y]).astype(np.float64)


def singling_out(
    synthetic: Float64Array, numeric: BoolArray, *, wanted: int, columns: int, rng: np.random.Generator
) -> Conditions:
    """Make conditions that exactly one released row meets, a different row each.

    With one column: values that a single row holds, the least and the largest. With more: columns of a row, both drawn
    at random; numbers on the row's side of the median, categories equal to the row's.

    Args:
        synthetic: (r, C) cells of the released rows.
        numeric: (C,) which columns are numbers, not codes.
        wanted: Most conditions, at least 1.
        columns: Columns of each condition, in 1 .. C.
        rng: Draws rows and columns.

    Returns:
        At most `wanted` conditions; fewer where few rows can be singled out.

    Raises:
        ValueError: If `wanted` or `columns` is out of range, or there is no released row.

    Source: Giomi et al. 2023, "A Unified Framework for Quantifying Privacy Risk in Synthetic Data". Deviation: a
    released row is singled out once, since conditions on the same row are no independent trials.
    """
    if wanted < 1 or not 1 <= columns <= synthetic.shape[1] or not len(synthetic):
        raise ValueError(
            f"{wanted} conditions on {columns} columns of {synthetic.shape} cells; give at least 1 condition, at least "
            f"1 row, and 1 to {synthetic.shape[1]} columns"
        )
    found, tried = [_none(columns)], 0
    taken = np.zeros(len(synthetic), dtype=np.bool_)
    drawn = _on_one(synthetic, numeric, rng) if columns == 1 else _on_several(synthetic, numeric, columns, rng)
    for batch in drawn:
        met = batch.met_by(synthetic)
        single = np.flatnonzero(met.sum(axis=1) == 1)
        rows, first = np.unique(met[single].argmax(axis=1), return_index=True)
        fresh = np.sort(first[~taken[rows]])[: wanted - int(taken.sum())]
        taken[met[single[fresh]].argmax(axis=1)] = True
        found.append(batch.take(single[fresh]))
        tried += len(batch)
        if taken.sum() >= wanted or tried >= _TRIES * wanted:
            break
    return Conditions(
        *(np.concatenate([getattr(part, name) for part in found]) for name in ("columns", "senses", "values"))
    )


def _none(columns: int) -> Conditions:
    empty = np.empty((0, columns), dtype=np.int64)
    return Conditions(empty, empty, empty.astype(np.float64))


def _on_one(synthetic: Float64Array, numeric: BoolArray, rng: np.random.Generator) -> Iterator[Conditions]:
    """Give what can single out by one column, in a random order."""
    made: list[tuple[int, int, float]] = []
    for column, held in enumerate(synthetic.T):
        values, counts = np.unique(held, return_counts=True)
        made += [(column, EQUAL, float(value)) for value in values[counts == 1]]
        if numeric[column]:
            made += [(column, AT_MOST, float(values[0])), (column, AT_LEAST, float(values[-1]))]
    order = rng.permutation(len(made))
    for start in range(0, len(made), _BATCH):
        batch = [made[one] for one in order[start : start + _BATCH]]
        columns, senses, values = (np.array(part)[:, None] for part in zip(*batch, strict=True))
        yield Conditions(columns, senses, values)


def _on_several(
    synthetic: Float64Array, numeric: BoolArray, count: int, rng: np.random.Generator
) -> Iterator[Conditions]:
    """Give conditions on columns of rows that are drawn at random, without end."""
    median = np.median(synthetic, axis=0)
    while True:
        rows = rng.integers(len(synthetic), size=_BATCH)
        columns = np.sort(rng.random((_BATCH, len(numeric))).argsort(axis=1)[:, :count], axis=1)
        values = synthetic[rows[:, None], columns]
        side = np.where(values > median[columns], AT_LEAST, AT_MOST)
        yield Conditions(columns, np.where(numeric[columns], side, EQUAL), values)


@dataclass(frozen=True)
class SinglingOut(Attack):
    """Say of conditions that single out one released row that they single out one person of the training data.

    Any condition that few people meet is met by exactly one of them now and then, so what counts is how much more often
    that happens among training records than among as many others of the same source.

    Measured on Adult (1,000 members, 1,000 others, 1,000 rows released, means of 4 releases), the share of conditions
    that exactly one member meets, and exactly one of the others: with 6 columns copies of all members 1.00 and 0.18,
    half copies and half strangers 0.47 and 0.19, a tenth 0.24 and 0.18, strangers only 0.19 and 0.18; copies with a
    fifth of their columns redrawn 0.36 and 0.14. With 1 column, of about 40 conditions: rows that were drawn column by
    column, without noise, 0.70 and 0.28 (6 columns: 0.09 and 0.09), because a rare value is released as it is.

    Attributes:
        predicates: Most conditions, at least 1.
        columns: Columns of each condition, the label among them, at least 1; a table with fewer has them all in each.

    Source: Giomi et al. 2023; the notion is Cohen and Nissim 2020, "Towards Formalizing the GDPR's Notion of Singling
    Out".
    """

    predicates: int = 500
    columns: int = 6

    name = "singling_out"
    title = "Singling out by released rows"
    paper = "Giomi et al. 2023, A Unified Framework for Quantifying Privacy Risk in Synthetic Data"
    requires = ThreatModel(frozenset({Capability.SYNTHETIC, Capability.RECORDS}))
    claims = Predicates

    def __post_init__(self) -> None:
        if self.predicates < 1 or self.columns < 1:
            raise ValueError(f"predicates is {self.predicates}, columns {self.columns}; both must be at least 1")

    def run(self, view: View, *, rng: np.random.Generator, on_progress: OnProgress = silent) -> Predicates:
        """Return which candidates meet each condition.

        Raises:
            NotApplicableError: If records have no columns.
        """
        cells, synthetic = cells_of(view.candidates), cells_of(view.synthetic)
        assert isinstance(view.facts.kind, Table)
        numeric = np.array([*(not column.categories for column in view.facts.kind.columns), False])
        columns = min(self.columns, len(numeric))
        found = singling_out(synthetic, numeric, wanted=self.predicates, columns=columns, rng=rng)
        few = f"{len(found)} of {self.predicates} conditions on {columns} columns single out a released row."
        return Predicates(found.met_by(cells), (few,) if len(found) < self.predicates else ())
