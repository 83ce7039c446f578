"""Who leaks more: one attack's figures within parts of the candidates, by class, correctness, or a column."""

from collections.abc import Iterator, Sequence

import numpy as np

from auditor.evidence.run_attack import Evidence
from auditor.statistics import membership
from defenses.errors import PlanError
from defenses.records import BoolArray, Column, IntArray, Records, Table
from reports.measures import AUC
from reports.records.report import Slice
from reports.suggestions import nearest

CLASS, CORRECT = "class", "correct"
SMALLEST = 10  # members, and non-members, below which a part says nothing
QUARTERS = ("lowest quarter", "second quarter", "third quarter", "highest quarter")

Part = tuple[str, str, BoolArray]


def check_slices(wanted: Sequence[str], records: Records) -> None:
    """Refuse a slice that these records do not have.

    Raises:
        PlanError: If a name is neither "class", "correct" nor a column; names the nearest known one.
    """
    known = [CLASS, CORRECT, *(_columns(records))]
    for name in wanted:
        if name not in known:
            raise PlanError(f"slices: {name!r} is no column of {records.name}{nearest(name, known)}")


def parts(wanted: Sequence[str], records: Records, predicted: IntArray) -> list[Part]:
    """Return the parts of the candidates as (what it is by, its value, (m,) bool).

    Args:
        wanted: "class", "correct" (whether the target gets the label right), or columns of a table: each category is a
            part, and each quarter of a numeric column.
        records: (m) the candidates.
        predicted: (m,) classes that the target predicts.
    """
    return [part for name in wanted for part in _by(name, records, predicted)]


def slices(entry: Evidence, chosen: Sequence[Part], *, level: float) -> list[Slice]:
    """Measure an attack within parts; their intervals hold together at `level`.

    Members of a part are compared with its own non-members, so that a class that is merely easier does not look more
    exposed. Parts with fewer than 10 on a side are left out. Groups of records are in no single part: then there are
    no slices.

    Args:
        entry: Evidence of an attack that ran.
        chosen: From `parts`.
        level: Of all intervals together.
    """
    if entry.units is not None:
        return []
    scores, included = entry.scores, entry.included
    there = [part for part in chosen if min((included & part[2]).sum(), (~included & part[2]).sum()) >= SMALLEST]
    found = []
    for by, value, mask in there:
        area = membership.auc(scores[mask], included[mask], level=1 - (1 - level) / len(there))
        inside = int(included[mask].sum())
        found.append(
            Slice(by=by, value=value, members=inside, nonmembers=int(mask.sum()) - inside, measures={AUC: area})
        )
    return found


def _by(name: str, records: Records, predicted: IntArray) -> Iterator[Part]:
    if name == CLASS:
        names = records.kind.classes if isinstance(records.kind, Table) else ()
        for label in range(records.classes):
            yield CLASS, names[label] if names else str(label), records.y == label
    elif name == CORRECT:
        right = predicted == records.y
        yield CORRECT, "label predicted right", right
        yield CORRECT, "label predicted wrong", ~right
    else:
        column = _columns(records)[name]
        block = records.x[:, column.start : column.start + column.width]
        if column.categories:
            for place, category in enumerate(column.categories):
                yield name, category, block.argmax(axis=1) == place
        else:
            quarter = np.searchsorted(np.quantile(block[:, 0], [0.25, 0.5, 0.75]), block[:, 0], side="left")
            for place, words in enumerate(QUARTERS):
                yield name, words, np.asarray(quarter == place)


def _columns(records: Records) -> dict[str, Column]:
    return {column.name: column for column in records.kind.columns} if isinstance(records.kind, Table) else {}
