"""How accurate models are under local DP with a dynamic budget: curves over epsilon_0, both rules, both modes."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from auditor.context import RunContext
from auditor.datasets import load
from auditor.reproductions.local_costs import mean_of
from defenses.accounting import account_run
from defenses.architectures import Architecture
from defenses.defense import Defense, History, Job
from defenses.ensemble import Trace
from defenses.errors import TrainingError
from defenses.guarantee import Unaccounted
from defenses.input_transform import make_input_transform
from defenses.mechanisms.local.budgets import BudgetRule
from defenses.mechanisms.local.preparation import public_statistics
from defenses.modes import Mode
from defenses.randomness import derive, stream
from defenses.recipe import Recipe
from defenses.records import Records
from defenses.sampling import Lots
from defenses.schemes.dp_sgd import DPSGD
from defenses.schemes.local_dp import LocalDP
from defenses.schemes.none import NoDefense
from reports.pages import wording
from reports.records.estimate import Estimate
from reports.records.reproduction import Chart, Outcome, Row, Series, compared

PUBLIC, MODELS, EPOCHS, BATCH_SIZE = 2_000, 3, 5, 256
KEPT = 0.02  # accuracy counts as kept within two points of no protection
LITERAL, REPAIRED, SOURCE = "literal, {} rule", "repaired, {} rule", "repaired, source alone"
GRADIENTS, CENTRAL = "repaired, gradients alone, {} rule", "central DP-SGD"
Found = tuple[list[Row], list[Chart]]


@dataclass(frozen=True, kw_only=True)
class Case:
    """A data set with what all trainings on it share.

    Attributes:
        name: Of the data set, as it is loaded.
        learning_rate: Of plain SGD.
        max_grad_norm: C in L1, near the typical length of a gradient.
        target: Accuracy that the budgets aim at.
        epsilons: Values of epsilon_0 to draw.
        printed: Those that get a row of their own.
        curves: Names of the curves to draw, of those of `schemes`; empty for all.
    """

    name: str
    learning_rate: float
    max_grad_norm: float
    target: float
    epsilons: tuple[float, ...]
    printed: tuple[float, ...]
    curves: tuple[str, ...] = ()


ADULT = Case(
    name="adult",
    learning_rate=0.1,
    max_grad_norm=10.0,
    target=0.85,
    epsilons=(0.5, 1, 2, 4, 8, 16, 64, 256, 1024),
    printed=(1, 8),
)
MNIST = Case(
    name="mnist",
    learning_rate=0.01,
    max_grad_norm=100.0,
    target=0.9,
    epsilons=(8, 64, 256, 1024, 4096),
    printed=(8, 1024),
    curves=(LITERAL.format("scaled"), SOURCE, GRADIENTS.format("scaled")),
)


class Bench:
    """A data set, cut into members, public records and a test set, and models trained on it.

    Args:
        case: Which, and how.
        scale: Share of the training set, in (0, 1].
        context: Where to work.
    """

    def __init__(self, case: Case, scale: float, context: RunContext) -> None:
        everything = load(case.name, split="train", data_dir=context.data_dir)
        order = stream(0, "p1", case.name).permutation(len(everything))
        end = max(round(scale * len(everything)), PUBLIC + 100)
        self.case, self.context = case, context
        self.members, self.public = everything.take(order[PUBLIC:end]), everything.take(order[:PUBLIC])
        self.test: Records = load(case.name, split="test", data_dir=context.data_dir)
        known = public_statistics(self.public.x.reshape(PUBLIC, -1))
        shape = self.public.shape
        self.front = make_input_transform(
            known.shift.reshape(shape), known.scale.reshape(shape), shape=shape, bound=3.0
        )

    @property
    def about(self) -> str:
        """The setting in words."""
        return f"{self.case.name}, {len(self.members):,} records, linear classifier, {EPOCHS} epochs"

    def recipe(self, *, epochs: int = EPOCHS) -> Recipe:
        """Return how everything is trained: a linear classifier by plain SGD."""
        lots = Lots(len(self.members), min(BATCH_SIZE, len(self.members)), epochs)
        network = Architecture("mlp", {"hidden": []})
        return Recipe(architecture=network, lots=lots, learning_rate=self.case.learning_rate)

    def standard(self, records: Records) -> Records:
        """Return records as the schemes of this paper see them, for those that do not prepare any."""
        return replace(records, x=self.front.apply_to(records.x))

    def accuracy(self, scheme: Defense) -> tuple[Estimate, tuple[Trace, ...]]:
        """Train a few models and return their mean accuracy on the test set, and what the training left behind."""
        prepares = isinstance(scheme, LocalDP)
        members, test = (each if prepares else self.standard(each) for each in (self.members, self.test))
        job = Job(self.recipe(), scheme, members, public=self.public)
        seeds = [derive(0, "p1", self.case.name, number) for number in range(MODELS)]
        everybody = np.ones((MODELS, len(members)), dtype=np.bool_)
        context = self.context
        try:
            models = context.workspace.store().train(
                job, everybody, seeds, device=context.device, width=MODELS, on_progress=context.on_progress
            )
        except TrainingError as error:
            return Estimate(method="mean, t interval", reason=f"training failed: {error}"), ()
        right = models.logits(test.x, device=context.place).argmax(2) == test.y
        return mean_of(right.mean(axis=1), unit="model"), models.traces

    def proved(self, scheme: Defense) -> str:
        """Say in words what is claimed and what is proved of a scheme here."""
        history = History(self.recipe().lots)
        claimed = scheme.claimed(history)
        assert claimed is not None
        proved = account_run(scheme, history, delta=claimed.delta)
        found = "unaccounted" if isinstance(proved, Unaccounted) else f"proved {proved.epsilon:.4g}"
        said = f"{wording.relation(scheme.neighboring.name)}, delta {wording.compact(claimed.delta)}"
        return f"claimed {claimed.epsilon:g}, {found} ({said})"


def schemes(case: Case, epsilon: float) -> dict[str, Defense]:
    """Return what is compared at one epsilon_0, by the name of its curve."""
    both = LocalDP(
        source_epsilon=epsilon,
        gradient_epsilon=epsilon,
        max_grad_norm=case.max_grad_norm,
        alpha=0.5,
        beta=0.5 * epsilon,
        target_accuracy=case.target,
        total_epsilon=EPOCHS * epsilon,
    )
    found: dict[str, Defense] = {
        SOURCE: replace(both, gradient_epsilon=None),
        CENTRAL: DPSGD(epsilon=epsilon, max_grad_norm=3.0),
    }
    for rule in BudgetRule:
        ruled = replace(both, budget_rule=rule)
        found[LITERAL.format(rule)] = replace(ruled, mode=Mode.LITERAL)
        found[REPAIRED.format(rule)] = ruled
        found[GRADIENTS.format(rule)] = replace(ruled, source_epsilon=None)
    return {name: found[name] for name in case.curves or sorted(found)}


def curves(bench: Bench) -> Found:
    """Return the privacy-accuracy curves of one data set, the printed points, and from where accuracy is kept."""
    case = bench.case
    free, _ = bench.accuracy(NoDefense())
    rows = [compared("test accuracy without protection", bench.about, paper=None, ours=free)]
    lines: dict[str, list[Estimate]] = {name: [] for name in schemes(case, 1.0)}
    for epsilon in case.epsilons:
        for name, scheme in schemes(case, epsilon).items():
            lines[name].append(bench.accuracy(scheme)[0])
            if epsilon in case.printed:
                about = f"{bench.about}, {name}, epsilon_0 = {epsilon:g}"
                note, ours = bench.proved(scheme), lines[name][-1]
                rows.append(compared("test accuracy", about, paper=None, ours=ours, note=note))
    for name, estimates in lines.items():
        least = _kept(case.epsilons, estimates, free)
        note = "the paper keeps 'a high level of accuracy' at 'moderate' epsilon, without a figure"
        what = "epsilon_0 from which accuracy is within two points of no protection"
        rows.append(compared(what, f"{bench.about}, {name}", paper=None, ours=least, note=note))
    unprotected = {"without protection": [free] * len(case.epsilons)}
    series = [_line(name, case.epsilons, estimates) for name, estimates in (unprotected | lines).items()]
    title = f"Accuracy against epsilon_0, {case.name}"
    return rows, [Chart(title=title, x_label="epsilon_0", y_label="test accuracy", log_x=True, series=series)]


def rules(bench: Bench, *, epsilon: float = 8.0) -> Found:
    """Return how both rules change the budget, and whether the noise grows late as the text wants.

    Budgets are those of the literal mode, which no filter ends.
    """
    rows, series = [], []
    for rule in BudgetRule:
        _, traces = bench.accuracy(schemes(ADULT, epsilon)[LITERAL.format(rule)])
        budgets = np.array([trace.state["budgets"] for trace in traces])
        late = mean_of(budgets[:, 0] / budgets[:, -1], unit="model")
        note = "the text wants less noise early and more late, so above 1; it gives no figure"
        about = f"{bench.about}, {rule} rule, epsilon_0 = {epsilon:g}"
        rows.append(compared("noise of the last epoch over the first", about, paper=None, ours=late, note=note))
        epochs = [float(epoch + 1) for epoch in range(EPOCHS)]
        series.append(Series(name=f"{rule} rule", x=epochs, y=budgets.mean(0).tolist()))
        _, traces = bench.accuracy(schemes(ADULT, epsilon)[GRADIENTS.format(rule)])
        taken = mean_of([int(np.count_nonzero(trace.state["budgets"])) for trace in traces], unit="model")
        note = f"of {EPOCHS}, until {EPOCHS * epsilon:g} in all would be passed; the paper has no filter"
        rows.append(compared("epochs that the filter admits", about, paper=None, ours=taken, note=note))
    return rows, [Chart(title="The paper's two budget rules", x_label="epoch", y_label="epsilon_t", series=series)]


def claims(bench: Bench) -> Found:
    """Return what is claimed and what is proved at epsilon_0 = 1."""
    rows, history = [], History(bench.recipe().lots)
    for name, scheme in schemes(bench.case, 1.0).items():
        if not isinstance(scheme, LocalDP):
            continue
        proved = account_run(scheme, history, delta=0.0)
        if isinstance(proved, Unaccounted):
            ours = Estimate(method="accounting", reason=f"unaccounted: {proved.reason}")
        else:
            ours = Estimate(value=proved.epsilon, method=proved.accountant)
        stated = replace(scheme, mode=Mode.LITERAL).claimed(history).epsilon  # the paper's, whatever the mode
        what = "epsilon: claimed by the paper, proved here"
        row = compared(what, f"{bench.about}, {name}", paper=stated, ours=ours, tolerance=0.0, at_most=True)
        if ours.value is None:  # nothing can be proved, so the claim is not
            row = row.model_copy(update={"outcome": Outcome.NOT_REPRODUCED})
        rows.append(row)
    return rows, []


def _kept(epsilons: Sequence[float], estimates: Sequence[Estimate], free: Estimate) -> Estimate:
    """Return the smallest epsilon from which on all estimates are near the free one."""
    near = [one.value is not None and one.value >= (free.value or 0.0) - KEPT for one in estimates]
    method = f"on a grid of {len(epsilons)} epsilons, by mean accuracies"
    far = max((place for place, kept in enumerate(near) if not kept), default=-1)
    if far == len(near) - 1:
        return Estimate(method=method, reason=f"it is not, up to {epsilons[-1]:g}")
    return Estimate(value=epsilons[far + 1], method=method)


def _line(name: str, epsilons: Sequence[float], estimates: Sequence[Estimate]) -> Series:
    there = [(x, one, one.value) for x, one in zip(epsilons, estimates, strict=True) if one.value is not None]
    return Series(
        name=name,
        x=[x for x, _, _ in there],
        y=[value for _, _, value in there],
        low=[value if one.low is None else one.low for _, one, value in there],
        high=[value if one.high is None else one.high for _, one, value in there],
    )
