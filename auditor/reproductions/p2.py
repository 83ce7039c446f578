"""P2, deep differential privacy with DCGAN feedback: learning curves on MNIST, and labels from single gradients.

Its loop of a DCGAN and a threshold is that of tuning, and not done again here.
"""

import importlib.metadata
import os
import platform
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from auditor.context import RunContext
from auditor.reproductions.p2_models import LEVEL, LOT, MEMBERS, Bench, inferred_labels, lots_of, scheme_of
from defenses.accounting import account_run
from defenses.defense import History
from defenses.guarantee import Guarantee
from defenses.modes import Mode
from defenses.progress import Progress
from defenses.randomness import derive
from defenses.sampling import Lots
from defenses.schemes.layerwise_dp import STATED_DELTA, STATED_EPSILON
from defenses.schemes.none import NoDefense
from reports.records.estimate import Estimate
from reports.records.reproduction import Chart, Outcome, Reproduction, Row, Series, compared

DEFAULT_SCALE = 0.4
SIGMAS = (8.0, 4.0, 2.0)
CURVE_EPOCHS = (1, 2, 3, 5, 7, 10, 15, 20, 25, 30, 40, 50)
TABLE_RECORDS, TABLE_EPOCHS, VICTIMS = (10_000, 20_000, 30_000), (10, 25, 50), 1_000
# What the text prints of its tables, and how near ours must come.
BEST_ACCURACY, BEST_ATTACK, HIGHEST_ATTACK = 0.9875, 0.1314, 0.14
NEAR_ACCURACY, NEAR_ATTACK = 0.01, 0.03

CHOICES = [
    "the network is not described: one hidden layer of 1,000 (ReLU) on the components, as in Abadi et al. 2016; the "
    "CNN without protection is that of Tramer and Boneh 2021, on whole images",
    f"lots of {LOT} (a tenth of the records where that is less), rate 0.1, plain SGD; the CNN with momentum 0.9",
    "what the components are fitted on is not said: here 5,000 of the 60,000 training images, taken as public, so that "
    "55,000 are left to train on",
    "the epochs of the learning curves are lost with the figures: 1 to 50, as in its table",
    "sigma of its table is not printed: all three are run",
    "the label-inference attack is not described: ours reads the label off the gradient of one training record at the "
    "trained network, which without protection never fails; the scheme noises that record as a lot of its own",
    "the literal mode is noise of sigma on each of two layers; curves and table are of the repaired mode",
    "the claimed epsilon is 0.5 at all three sigma; its symbol is lost in the text",
    "scale shrinks the numbers of records, and neither epochs nor what the accountant is asked about",
]
TRIED = [
    "98.75% at 10,000 records and 10 epochs, at full size: the scheme at sigma 2 reaches 83.7%, 87.8%, 90.0% and 91.5% "
    "at rates of 0.05, 0.1, 0.2 and 0.5, and about 90% with lots of 250 or 1,500; at sigma 4 and 8 it is 87.6% and "
    "86.4% at a rate of 0.1. The CNN without protection reaches 97.7% there, and 98.4% after 50 epochs",
    "the text says that accuracy falls with more records and more epochs; the CNN's rises with both, and the scheme's "
    "with records and mostly with epochs",
    "the text says that the attack works the better the more the model is overfitted; from one unprotected gradient it "
    "never fails, and under a whole lot's noise it is guessing, whatever the model",
]


@dataclass(frozen=True)
class Cell:
    """One entry of the paper's table.

    Attributes:
        sigma: Of the scheme; 0 is the CNN without protection.
        records: In the paper's own number.
        epochs: Passes.
        accuracy: On the test images.
        attack: Labels guessed from one record's gradient, with all of a lot's noise.
        within: The same with that record's share of the noise, as if nobody added up.
    """

    sigma: float
    records: int
    epochs: int
    accuracy: Estimate
    attack: Estimate
    within: Estimate

    @property
    def who(self) -> str:
        """What it is an entry of."""
        return f"scheme, sigma {self.sigma:g}" if self.sigma else "CNN, no protection"


def reproduce(scale: float, context: RunContext) -> Reproduction:
    """Do the learning curves, the accounting and the table of label inference again.

    Args:
        scale: Share of the paper's numbers of records, in (0, 1]; 0.4 takes two cores about ten minutes.
        context: Where to work.
    """
    began, bench = time.monotonic(), Bench(scale, context)
    curve_rows, curves = _learning_curves(bench)
    epsilon_rows, epsilons = _epsilons(bench)
    cells = list(_cells(bench))
    return Reproduction(
        paper="P2",
        title="Deep differential privacy with DCGAN feedback",
        scale=scale,
        setting="MNIST, C = 4, 60 principal components, delta = 1e-5, sigma 8, 4 and 2",
        rows=[*curve_rows, *epsilon_rows, *_table_rows(cells, scale)],
        charts=[*curves, epsilons, *_table_charts(cells)],
        choices=CHOICES,
        tried=TRIED,
        hardware=f"{platform.machine()}, {os.cpu_count()} cores, {context.place}",
        versions={name: importlib.metadata.version(name) for name in ("torch", "numpy", "dp-accounting")},
        seconds=time.monotonic() - began,
    )


def _learning_curves(bench: Bench) -> tuple[list[Row], list[Chart]]:
    """Train and test accuracy over the epochs; the paper shows figures, and says in words how far apart they are."""
    records, last = bench.scaled(MEMBERS), CURVE_EPOCHS[-1]
    sides, rows, charts = {"training": bench.members(records), "test": bench.test}, [], []
    for sigma in SIGMAS:
        where = f"sigma {sigma:g}, {records:,} records, {last} epochs"
        models = bench.models(scheme_of(sigma), records, CURVE_EPOCHS)
        found = {name: [bench.accuracy(model, data) for model in models.values()] for name, data in sides.items()}
        lines = [_series(name, CURVE_EPOCHS, values) for name, values in found.items()]
        charts.append(Chart(title=f"Accuracy at sigma {sigma:g}", x_label="epochs", y_label="accuracy", series=lines))
        rows += [compared(f"{name} accuracy", where, paper=None, ours=values[-1]) for name, values in found.items()]
        literal = bench.models(scheme_of(sigma, Mode.LITERAL), records, (last,))[last]
        rows.append(compared("test accuracy, literal", where, paper=None, ours=bench.accuracy(literal, bench.test)))
        alike = sigma == min(SIGMAS)
        rows.append(
            compared(
                "training less test accuracy",
                where,
                paper=0.0 if alike else None,
                ours=_difference(
                    *(bench.accuracy(models[last], side, level=(1 + LEVEL) / 2) for side in sides.values())
                ),
                tolerance=NEAR_ACCURACY if alike else None,
                note="the paper: almost none" if alike else "the paper: worse in training than in test, most at 8",
            )
        )
    return rows, charts


def _epsilons(bench: Bench) -> tuple[list[Row], Chart]:
    """Price the paper's own sizes, which need no training, and the runs that were done."""
    rows, lines, last = [], [], TABLE_EPOCHS[-1]
    for sigma in SIGMAS:
        for mode in Mode:
            found = [proved(sigma, mode, lots_of(60_000, epochs)) for epochs in (1, *TABLE_EPOCHS)]
            lines.append(_series(f"sigma {sigma:g}, {mode.value}", (1, *TABLE_EPOCHS), found))
            rows.append(_claim(sigma, mode, 60_000, last, found[-1]))
            for epochs in (TABLE_EPOCHS[0], last):
                lots = lots_of(TABLE_RECORDS[0], epochs)
                rows.append(_claim(sigma, mode, TABLE_RECORDS[0], epochs, proved(sigma, mode, lots)))
        records = bench.scaled(MEMBERS)
        where = f"sigma {sigma:g}, repaired, {records:,} records, {last} epochs"
        here = proved(sigma, Mode.REPAIRED, lots_of(records, last))
        rows.append(compared("proved epsilon of the run done here", where, paper=None, ours=here))
    stated = Series(name="claimed", x=[1.0, float(last)], y=[STATED_EPSILON] * 2, paper=True)
    axes = {"x_label": "epochs", "y_label": "epsilon", "log_x": True, "log_y": True}
    return rows, Chart(title="Epsilon proved at 60,000 records", series=[*lines, stated], **axes)


def proved(sigma: float, mode: Mode, lots: Lots) -> Estimate:
    """Return the epsilon of a run at delta 1e-5, that of the accountant."""
    found = account_run(scheme_of(sigma, mode), History(lots), delta=STATED_DELTA)
    assert isinstance(found, Guarantee)
    return Estimate(value=found.epsilon, method=found.accountant, unit="run")


def _claim(sigma: float, mode: Mode, records: int, epochs: int, found: Estimate) -> Row:
    true = _value(found) <= STATED_EPSILON
    return Row(
        what="epsilon, claimed and proved",
        setting=f"sigma {sigma:g}, {mode.value}, {records:,} records, {epochs} epochs",
        paper=STATED_EPSILON,
        ours=found,
        tolerance=0.0,
        at_most=True,
        outcome=Outcome.REPRODUCED if true else Outcome.NOT_REPRODUCED,
        note="the claim is true" if true else "only a larger epsilon can be proved",
    )


def _cells(bench: Bench) -> Iterator[Cell]:
    """Train and attack every cell of the table."""
    done, total = 0, (1 + len(SIGMAS)) * len(TABLE_RECORDS) * len(TABLE_EPOCHS)
    for records in TABLE_RECORDS:
        members = bench.members(bench.scaled(records))
        victims = members.x[:VICTIMS], members.y[:VICTIMS]
        for sigma in (0.0, *SIGMAS):
            scheme = scheme_of(sigma) if sigma else None
            models = bench.models(scheme or NoDefense(), len(members), TABLE_EPOCHS)
            for epochs, model in models.items():
                lots = lots_of(len(members), epochs)
                rule = scheme.gradient(lots) if scheme else None
                shared = replace(rule, noise_multiplier=sigma / lots.batch_size) if rule else None
                seed, place = derive(0, "reproduce P2", "noise", records, epochs, f"{sigma:g}"), bench.context.place
                attack = inferred_labels(model, *victims, rule, seed=seed, device=place)
                within = inferred_labels(model, *victims, shared, seed=seed, device=place) if rule else attack
                yield Cell(sigma, records, epochs, bench.accuracy(model, bench.test), attack, within)
                done += 1
                bench.context.on_progress(Progress("reading labels off gradients", done, total))


def _table_rows(cells: Sequence[Cell], scale: float) -> list[Row]:
    rows = []
    for cell in cells:
        where = f"{cell.who}, {cell.records:,} records, {cell.epochs} epochs"
        printed = bool(cell.sigma) and (cell.records, cell.epochs) == (TABLE_RECORDS[0], TABLE_EPOCHS[0])
        whole = scale == 1
        note = "" if whole else f"run on {round(scale * cell.records):,} records"
        for name, paper, ours, near in (
            ("test accuracy", BEST_ACCURACY, cell.accuracy, NEAR_ACCURACY),
            ("label inference", BEST_ATTACK, cell.attack, NEAR_ATTACK),
        ):
            rows.append(
                compared(
                    name, where, paper=paper if printed else None, ours=ours,
                    tolerance=near if printed and whole else None, note=note,
                )
            )  # fmt: skip
    for sigma in SIGMAS:
        of_it = [cell for cell in cells if cell.sigma == sigma]
        highest = max((cell.attack for cell in of_it), key=_value)
        within = max((cell.within for cell in of_it), key=_value)
        outcome = Outcome.REPRODUCED if _value(highest) <= HIGHEST_ATTACK else Outcome.NOT_REPRODUCED
        where = f"scheme, sigma {sigma:g}, highest over the table"
        rows += [
            Row(
                what="label inference", setting=where, paper=HIGHEST_ATTACK, ours=highest, tolerance=0.0,
                at_most=True, outcome=outcome, note="the paper: below that throughout",
            ),
            compared(
                "label inference, one record of a lot", where, paper=None, ours=within,
                note="with its share of the lot's noise alone, as if each record's gradient were sent",
            ),
        ]  # fmt: skip
    return rows


def _table_charts(cells: Sequence[Cell]) -> list[Chart]:
    """One chart of accuracy and one of the attack, over the records, a line for each scheme at the most epochs."""
    charts = []
    for title, field in (("Test accuracy", "accuracy"), ("Label inference", "attack")):
        lines = []
        for who in dict.fromkeys(cell.who for cell in cells):
            of_it = [cell for cell in cells if cell.who == who and cell.epochs == TABLE_EPOCHS[-1]]
            lines.append(_series(who, [cell.records for cell in of_it], [getattr(cell, field) for cell in of_it]))
        title = f"{title} after {TABLE_EPOCHS[-1]} epochs"
        charts.append(Chart(title=title, x_label="records (the paper's number)", y_label="share right", series=lines))
    return charts


def _series(name: str, x: Sequence[float], found: Sequence[Estimate]) -> Series:
    whole = all(one.low is not None and one.high is not None for one in found)
    ends = {end: [getattr(one, end) for one in found] for end in ("low", "high")} if whole else {}
    return Series(name=name, x=[float(value) for value in x], y=[_value(one) for one in found], **ends)


def _value(found: Estimate) -> float:
    assert found.value is not None
    return found.value


def _difference(one: Estimate, other: Estimate) -> Estimate:
    """Return one rate less another, with limits that hold together."""
    assert one.low is not None and one.high is not None and other.low is not None and other.high is not None  # noqa: PT018
    return Estimate(
        value=_value(one) - _value(other),
        low=one.low - other.high,
        high=one.high - other.low,
        level=LEVEL,
        method="difference of Clopper-Pearson limits",
    )
