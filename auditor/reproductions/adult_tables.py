"""Tables of Adult, real and noisy: what P3 prints of them, and how far synthetic rows are from the real ones."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy import stats

from auditor.datasets import decode
from defenses.mechanisms.tables import Bins, Categories, Ways, equal_bins, release_tables, whole_numbers
from defenses.mechanisms.tables.domains import Domain
from defenses.mechanisms.tables.fidelity import code_distances
from defenses.mechanisms.tables.frames import codes_of
from defenses.mechanisms.tables.margins import Margin, margins_of
from defenses.modes import Mode
from defenses.records import IntArray, Records, Table
from reports.records.estimate import Estimate
from reports.records.reproduction import Chart, Row, Series, compared

if TYPE_CHECKING:
    import pandas as pd

Found = tuple[list[Row], list[Chart]]

# The rows of the paper's figure 6 as far as they can be read: age -> counts of occupations in the order of the
# alphabet. The last row is cut off before its last cell.
PRINTED = {
    17: (23, 0, 14, 1, 9, 40, 2, 129, 8, 10, 3, 87, 1, 3),
    18: (55, 0, 17, 6, 14, 50, 17, 152, 4, 10, 5, 115, 2, 8),
    19: (102, 0, 40, 12, 24, 65, 30, 166, 3, 18, 3, 112, 8, 16),
    20: (117, 0, 35, 15, 23, 81, 41, 139, 3, 28, 9, 108, 14, 24),
    21: (121, 0, 59, 18, 25, 51, 51, 142, 4, 30, 7, 93, 16),
}
FINE: Mapping[str, Bins] = {
    "age": whole_numbers(17, 90),
    "education-num": whole_numbers(1, 16),
    "capital-gain": equal_bins(0, 100_000, 100),
    "capital-loss": equal_bins(0, 5_000, 50),
    "hours-per-week": whole_numbers(1, 99),
}
COARSE: Mapping[str, Bins] = {
    **FINE,
    "age": whole_numbers(17, 90, step=5),
    "capital-gain": Bins((0, 1, 3_000, 5_000, 7_000, 10_000, 20_000, 100_000)),
    "capital-loss": Bins((0, 1, 1_500, 1_800, 2_000, 2_500, 5_000)),
    "hours-per-week": Bins((0, 20, 35, 40, 41, 50, 60, 100)),
}
# Pairs that common knowledge says depend on each other; every column is in one.
CHOSEN: tuple[Margin, ...] = (
    *(("education", "education-num"), ("education", "occupation"), ("education", "income")),
    *(("age", "marital-status"), ("marital-status", "relationship"), ("relationship", "sex")),
    *(("occupation", "workclass"), ("sex", "occupation"), ("race", "native-country"), ("age", "hours-per-week")),
    *(("relationship", "income"), ("capital-gain", "income"), ("capital-loss", "income")),
)
PAIR: Margin = ("age", "occupation")
LABEL = "income"
REPEATS = 5
BUDGETS = (0.1, 0.3, 1.0, 3.0, 10.0)
SETS: Mapping[str, Ways | tuple[Margin, ...]] = {
    "each column": Ways.ONE,
    "each column with the label": Ways.WITH_LABEL,
    "13 chosen pairs": CHOSEN,
    "all 91 pairs": Ways.TWO,
}


def printed(frame: "pd.DataFrame", real: Records, *, whole: bool) -> Found:
    """Compare the contingency table with the rows of it that the paper prints."""
    import pandas as pd

    known = frame[frame["occupation"] != "?"]
    domain = domains_of(real, FINE)["occupation"]
    assert isinstance(domain, Categories)
    names = sorted(str(value) for value in domain.values if value != "?")
    table = pd.crosstab(known["age"], known["occupation"]).reindex(index=list(PRINTED), columns=names, fill_value=0)
    tolerance = 0.0 if whole else None
    rows, agree = [], 0
    for age, cells in PRINTED.items():
        ours = table.loc[age].to_numpy()[: len(cells)]
        agree += int((ours == np.array(cells)).sum())
        total = Estimate(value=float(ours.sum()), method="count")
        about = f"figure 6, its {len(cells)} legible cells"
        rows.append(
            compared(
                f"people aged {age}", about, paper=float(sum(cells)), ours=total, tolerance=tolerance, note="their sum"
            )
        )  # fmt: skip
    legible = sum(map(len, PRINTED.values()))
    agreed = Estimate(value=float(agree), method="count", n=legible, unit="cell")
    note = "crosstab of the training part; rows without an occupation are left out"
    first = compared(
        "cells that agree exactly", "figure 6, contingency table", paper=float(legible), ours=agreed,
        tolerance=tolerance, note=note,
    )  # fmt: skip
    return [first, *rows], []


def age_and_occupation(frame: "pd.DataFrame", real: Records) -> Found:
    """Compare one-way with two-way tables of the paper's pair, each table with epsilon 1, the paper's way."""
    pair = frame[list(PAIR)]
    domains = {name: domains_of(real, FINE)[name] for name in PAIR}
    about = "age and occupation, epsilon 1 for each table, clipped"
    ways: dict[str, list[Margin]] = {"1-way": [(name,) for name in PAIR], "2-way": [PAIR]}
    measures: dict[str, dict[str, list[float]]] = {name: {} for name in ways}
    shares, managers = {"original": _shares(pair)}, {"original": _managers(pair)}
    dependence = _cramers_v(pair)
    for name, tables in ways.items():
        for seed in range(REPEATS):
            released = release_tables(pair, columns=domains, epsilon=1.0, tables=tables, mode=Mode.LITERAL, seed=seed)
            rows = released.sample(seed=seed)
            ages = released.fitted.ones["age"] / released.fitted.total
            young = int(((rows["age"] == 18) & (rows["occupation"] == "Exec-managerial")).sum())
            for measure, value in (
                ("total-variation distance of the noisy age histogram", 0.5 * np.abs(ages - shares["original"]).sum()),
                ("dependence of age and occupation (Cramer's V)", _cramers_v(rows)),
                ("managers aged 18", young),
            ):
                measures[name].setdefault(measure, []).append(float(value))
        shares[name], managers[name] = ages, _managers(rows)
    counts = np.bincount(codes_of(pair, domains)[1]["age"], minlength=74)
    occupations = domains["occupation"].size
    found = [
        compared(f"{measure}, {name}", about, paper=None, ours=mean_of(values), note=_SAID[measure])
        for name in ways
        for measure, values in measures[name].items()
    ]
    alone = Estimate(value=dependence, method="Cramer's V of the real rows", n=len(pair))
    plain = "age and occupation, the real rows"
    found.append(compared("dependence of age and occupation (Cramer's V), original", plain, paper=None, ours=alone))
    for name, cells in (("1-way", 74), ("2-way", 74 * occupations)):
        mean = Estimate(value=float(counts.sum() / cells), method="rows divided by cells")
        found.append(
            compared(
                f"mean count of a cell, {name}", plain, paper=None, ours=mean,
                note="the noise of a cell at epsilon 1 has a standard deviation of 1.4 rows in both",
            )
        )  # fmt: skip
    charts = [
        Chart(title=title, x_label="age", y_label=label, series=[
            Series(name=name, x=[float(17 + at) for at in range(shown)], y=[float(value) for value in values[:shown]])
            for name, values in lines.items()])
        for title, label, lines, shown in (
            ("Age: original and noisy tables, epsilon 1 each", "share of rows", shares, 74),
            # Beyond 65 a year of age holds so few people that their shares jump in the original too.
            ("Managers by age: original and synthetic rows", "share of managers at this age", managers, 49),
        )
    ]  # fmt: skip
    return found, charts


_SAID = {
    "total-variation distance of the noisy age histogram": "the paper: right shape, less smooth from the 2-way table",
    "dependence of age and occupation (Cramer's V)": "the paper: lost by 1-way tables, kept by 2-way tables",
    "managers aged 18": "figure 6 prints 6; the paper: 1-way tables can be very wrong about them",
}


def all_columns(frame: "pd.DataFrame", real: Records) -> Found:
    """Measure single columns and pairs at a total epsilon, one record replaced, for several sets of tables."""
    found, curves = [], {}
    for bins, name in ((FINE, "fine bins"), (COARSE, "coarse bins")):
        domains, codes = codes_of(frame, domains_of(real, bins))
        for tables, mode in [*((each, Mode.REPAIRED) for each in SETS), ("each column", Mode.LITERAL)]:
            measured = [_distances(frame, domains, codes, tables, mode, epsilon=1.0, seed=at) for at in range(REPEATS)]
            how = "fitted" if mode is Mode.REPAIRED else "clipped"
            about = f"total epsilon 1, one record replaced, {name}, {how}"
            measures = ("1-way distance", "2-way distance", "1-way distance of the noisy tables themselves")
            for what, values in zip(measures, zip(*measured, strict=True), strict=True):
                note = (
                    "about 0.014 was expected; the paper prints none"
                    if name == "fine bins" and tables == "each column"
                    else ""
                )
                found.append(
                    compared(
                        f"mean {what}, {tables}", about, paper=None, ours=mean_of(values),
                        note="" if what.startswith("2") else note,
                    )
                )  # fmt: skip
        if bins is COARSE:
            for tables in SETS:
                curves[tables] = [
                    _distances(frame, domains, codes, tables, Mode.REPAIRED, epsilon=epsilon, seed=0)[1]
                    for epsilon in BUDGETS
                ]
    chart = Chart(
        title="Pairs: distance of synthetic rows against the total budget (coarse bins)",
        x_label="total epsilon, one record replaced", y_label="mean 2-way total-variation distance", log_x=True,
        series=[Series(name=name, x=list(BUDGETS), y=values) for name, values in curves.items()],
    )  # fmt: skip
    return found, [chart]


def frame_of(records: Records) -> "pd.DataFrame":
    """Return encoded rows in the source's columns and units, the label last."""
    assert isinstance(records.kind, Table)
    frame = decode(records.x, records.kind)
    for name in FINE:
        frame[name] = frame[name].round().astype(np.int64)
    frame[records.kind.label] = np.array(records.kind.classes, dtype=object)[records.y]
    return frame


def domains_of(records: Records, bins: Mapping[str, Bins]) -> dict[str, Domain]:
    """Return the public domain of every column, the label included."""
    kind = records.kind
    assert isinstance(kind, Table)
    found: dict[str, Domain] = {
        column.name: Categories(*column.categories, missing=False) if column.categories else bins[column.name]
        for column in kind.columns
    }
    return found | {kind.label: Categories(*kind.classes, missing=False)}


def mean_of(values: Sequence[float], *, unit: str = "release") -> Estimate:
    """Return the mean over independent releases or models with Student's interval."""
    spread = float(stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values)))
    mean = float(np.mean(values))
    return Estimate(
        value=mean, low=mean - spread, high=mean + spread, level=0.95, method="mean, Student's interval",
        n=len(values), unit=unit,
    )  # fmt: skip


def _distances(
    frame: "pd.DataFrame",
    domains: Mapping[str, Domain],
    codes: Mapping[str, IntArray],
    tables: str,
    mode: Mode,
    *,
    epsilon: float,
    seed: int,
) -> tuple[float, float, float]:
    """Return the mean distance of single columns and of pairs between real and as many synthetic rows.

    The third is that of single columns between the real rows and the noisy tables that the synthetic ones come from.
    """
    names = list(domains)
    wanted = margins_of(SETS[tables], names, label=LABEL)
    # The literal mode spends its epsilon on each table, and twice that where a record is replaced.
    budget = epsilon if mode is Mode.REPAIRED else epsilon / (2 * len(wanted))
    released = release_tables(frame, columns=domains, epsilon=budget, tables=wanted, mode=mode, seed=seed)
    drawn = released.codes(None, np.random.default_rng(seed))
    single, pairs = (
        code_distances(codes, drawn, domains, margins_of(ways, names)).values() for ways in (Ways.ONE, Ways.TWO)
    )
    ones = {name: table / table.sum() for name, table in released.fitted.ones.items()}
    real = {name: np.bincount(codes[name], minlength=len(one)) / len(frame) for name, one in ones.items()}
    tables_alone = [0.5 * np.abs(ones[name] - real[name]).sum() for name in names]
    return float(np.mean(list(single))), float(np.mean(list(pairs))), float(np.mean(tables_alone))


def _shares(pair: "pd.DataFrame") -> npt.NDArray[np.float64]:
    counts = np.bincount(pair["age"].to_numpy() - 17, minlength=74)
    return np.asarray(counts / counts.sum())


def _managers(pair: "pd.DataFrame") -> npt.NDArray[np.float64]:
    """Return the share of managers at each age, 0 where nobody has it."""
    ages = pair["age"].to_numpy() - 17
    all_of_age = np.bincount(ages, minlength=74)
    managers = np.bincount(ages[(pair["occupation"] == "Exec-managerial").to_numpy()], minlength=74)
    return np.asarray(managers / np.maximum(all_of_age, 1))


def _cramers_v(pair: "pd.DataFrame") -> float:
    """Return Cramer's V, corrected for what independent columns show by chance (Bergsma 2013)."""
    import pandas as pd

    table = pd.crosstab(pair["age"], pair["occupation"]).to_numpy()
    n, (rows, columns) = table.sum(), table.shape
    phi = stats.chi2_contingency(table, correction=False).statistic / n
    phi = max(0.0, phi - (rows - 1) * (columns - 1) / (n - 1))
    least = min(rows - (rows - 1) ** 2 / (n - 1), columns - (columns - 1) ** 2 / (n - 1)) - 1
    return float(np.sqrt(phi / least))
