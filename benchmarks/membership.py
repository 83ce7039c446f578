"""Every membership attack on eight targets of each of five data sets, beside ART's attacks on the same splits.

Targets and shadow models take each record of a pool by a fair coin and train alike; the sixteen shadows serve every
target. Figures are means over the targets with Student's interval at 95%, for this pool and these shadows. Attacks that
ask thousands of questions about a record are given 400 of them. ART's black-box attacks learn from as many outputs of
the same shadows as our shadow classifier. Seconds are those of the first target, an attack's own training included.

Data are searched for in the folder that AUDITOR_DATA names. What is done is kept, and not done again when the command
is given again.
"""

import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import PARTS, Settings, Style, kept, note, table

NAME = "membership"
RATES = (0.01, 0.001)
LEVEL = 0.95
ROWS = 60_000  # shadow outputs that a learned attack sees, ours and ART's


@dataclass(frozen=True)
class Setup:
    """One data set and how its models train."""

    source: str
    pool: int
    population: int
    network: str
    epochs: int
    options: Mapping[str, Any] = field(default_factory=dict)
    learning_rate: float = 0.05
    batch_size: int = 64
    flip: bool = False
    targets: int = 8
    shadows: int = 16
    asked: int = 400


WIDE = {"hidden": [128]}
SETUPS = (
    Setup("location30", 3_000, 1_000, "mlp", 60, WIDE, learning_rate=0.1),
    Setup("fashion_mnist", 8_000, 2_000, "cnn", 40),
    Setup("cifar10", 8_000, 2_000, "cnn", 40, flip=True),
    Setup("adult", 8_000, 2_000, "mlp", 60, {"hidden": [256]}),
    Setup("digits", 1_400, 397, "mlp", 60, WIDE),
)
QUICK = (Setup("digits", 600, 200, "mlp", 20, WIDE, targets=2, shadows=4, asked=50),)

Scores = Callable[[int, Any], Any]  # target, indices of the candidates -> a score for each


def run(settings: Settings) -> dict[str, Any]:
    rows = [row for setup in (QUICK if settings.quick else SETUPS) for row in _measured(setup, settings.device)]
    return {
        "settings": {"setups": [asdict(setup) for setup in (QUICK if settings.quick else SETUPS)], "level": LEVEL},
        "unit": "rates in [0, 1], [mean, low, high] over the targets; seconds of the first target, models at hand",
        "rows": rows,
    }


def show(result: dict[str, Any], style: Style) -> str:
    columns: dict[str, str | Callable[[Any], Any]] = {
        "data": "data",
        "attack": "attack",
        "records": "records",
        "AUC": functools.partial(_shown, key="auc"),
        "TPR at 1% FPR": functools.partial(_shown, key="tpr_at_fpr_0.01"),
        "TPR at 0.1% FPR": functools.partial(_shown, key="tpr_at_fpr_0.001"),
        "seconds": "seconds",
    }
    text = table(result["rows"], columns, style)
    seen = {row["data"]: (row["accuracy_in"], row["accuracy_out"]) for row in result["rows"]}
    lines = [f"{data}: accuracy {inside:.1%} in, {outside:.1%} out" for data, (inside, outside) in seen.items()]
    return "\n".join([text, "", *(f"- {line}" if style == "markdown" else line for line in lines)])


def _shown(row: Mapping[str, Any], key: str) -> str | None:
    found = row[key]
    return None if found is None else f"{found[0]:.3f} ({found[1]:.3f}-{found[2]:.3f})"


def _measured(setup: Setup, device: str) -> Iterator[dict[str, Any]]:
    bench = _Bench(setup, device)
    for title, wanted, scores in bench.cases():

        def make(title: str = title, wanted: int = wanted, scores: Scores = scores) -> dict[str, Any] | None:
            note(f"membership: {setup.source}, {title}")
            return bench.row(title, wanted, scores)

        row = kept([NAME, asdict(setup), title, Path(__file__).read_text()], make, PARTS)
        if row is not None:
            yield row


class _Bench:
    """The models of one data set, trained when they are first asked for."""

    def __init__(self, setup: Setup, device: str) -> None:
        self.setup, self.device = setup, device
        self._fitted: dict[str, Any] = {}

    @functools.cached_property
    def job(self) -> Any:
        from auditor.datasets import load
        from defenses.architectures import Architecture
        from defenses.augmentation import Augmentation
        from defenses.defense import Job
        from defenses.recipe import Recipe
        from defenses.sampling import Lots
        from defenses.schemes.none import NoDefense
        from defenses.updates import SGD

        setup = self.setup
        records = load(setup.source, download=False)
        _, first = np.unique(records.row_digests(), return_index=True)  # a twin would be in where the record is out
        records = records.take(np.sort(first))
        order = np.random.default_rng(0).permutation(len(records))
        self.population = records.take(order[setup.pool : setup.pool + setup.population])
        recipe = Recipe(
            architecture=Architecture(setup.network, dict(setup.options)),
            lots=Lots(setup.pool // 2, setup.batch_size, setup.epochs),
            learning_rate=setup.learning_rate,
            optimizer=SGD(momentum=0.9),
            augmentation=Augmentation(flip=setup.flip),
        )
        return Job(recipe, NoDefense(), records.take(order[: setup.pool]))

    @functools.cached_property
    def store(self) -> Any:
        from defenses.engine.store import ModelStore

        return ModelStore(Path(".auditor") / "models")

    @functools.cached_property
    def included(self) -> Any:
        return np.random.default_rng(1).random((self.setup.targets, self.setup.pool)) < 0.5

    @functools.cached_property
    def models(self) -> Any:
        seeds = list(range(self.setup.targets))
        return self.store.train(self.job, self.included, seeds, device=self.device)

    @functools.cached_property
    def shadows(self) -> Any:
        from attacks.shadows import ShadowSource

        count, job = self.setup.shadows, self.job
        return ShadowSource(job, self.store, population=self.population, device=self.device, planned=count)

    @functools.cached_property
    def target_logits(self) -> Any:
        return self.models.logits(self.job.records.x)

    @functools.cached_property
    def accuracies(self) -> tuple[float, float]:
        right = self.target_logits.argmax(axis=-1) == self.job.records.y
        return float(right[self.included].mean()), float(right[~self.included].mean())

    @functools.cached_property
    def few(self) -> Any:
        drawn = np.random.default_rng(2).choice(self.setup.pool, min(self.setup.asked, self.setup.pool), replace=False)
        return np.sort(drawn)

    def cases(self) -> list[tuple[str, int, Scores]]:
        """Return (title, number of records, target -> scores) of everything that is compared."""
        from attacks.membership.augmentation_agreement import AugmentationAgreement
        from attacks.membership.boundary_distance import BoundaryDistance
        from attacks.membership.gradient_norm import GradientNorm
        from attacks.membership.lira import LiRA
        from attacks.membership.loss_threshold import LossThreshold
        from attacks.membership.modified_entropy import ModifiedEntropy, ModifiedEntropyByClass
        from attacks.membership.population import Population
        from attacks.membership.quantile import Quantile
        from attacks.membership.reference import Reference
        from attacks.membership.rmia import RMIA
        from attacks.membership.shadow_classifier import ShadowClassifier

        k = self.setup.shadows
        ours: list[tuple[str, Any]] = [
            ("loss threshold", LossThreshold()),
            ("modified entropy", ModifiedEntropy()),
            ("modified entropy, by class", ModifiedEntropyByClass()),
            ("gradient norm", GradientNorm()),
            ("population", Population()),
            ("quantile regression", Quantile()),
            ("quantile regression, scaled", Quantile(scaled=True)),
            ("reference models", Reference(shadows=k)),
            ("shadow classifier", ShadowClassifier(shadows=k, rows=ROWS)),
            ("shadow classifier, per class", ShadowClassifier(shadows=k, rows=ROWS, per_class=True)),
            ("LiRA, offline", LiRA(shadows=k, online=False)),
            ("LiRA, online", LiRA(shadows=k)),
            ("RMIA, offline", RMIA(shadows=k, online=False)),
            ("RMIA, online", RMIA(shadows=k)),
        ]
        if self.setup.flip:
            ours += [
                ("LiRA, online, 2 views", LiRA(shadows=k, queries=2, shrink=True)),
                ("RMIA, online, 2 views", RMIA(shadows=k, queries=2)),
            ]
        found: list[tuple[str, int, Scores]] = [
            (title, self.setup.pool, functools.partial(self._ours, attack)) for title, attack in ours
        ]
        asked = min(self.setup.asked, self.setup.pool)
        found.append(("boundary distance (labels)", asked, functools.partial(self._ours, BoundaryDistance())))
        agreement = functools.partial(self._ours, AugmentationAgreement())
        found.append(("augmentation agreement (labels)", self.setup.pool, agreement))
        return [
            *found,
            ("ART rule-based (labels)", self.setup.pool, self._rule_based),
            ("ART black-box, random forest", self.setup.pool, functools.partial(self._black_box, "rf")),
            ("ART black-box, gradient boosting", self.setup.pool, functools.partial(self._black_box, "gb")),
        ]

    def row(self, title: str, wanted: int, scores: Scores) -> dict[str, Any] | None:
        from auditor.statistics import membership
        from reports.measures import tpr_name

        indices = self.few if wanted < self.setup.pool else np.arange(self.setup.pool)
        self.shadows.outputs(1)  # shadows are trained before the clock starts
        found: dict[str, list[float | None]] = {"auc": []} | {tpr_name(rate): [] for rate in RATES}
        seconds = []
        for target in range(self.setup.targets):
            began = time.perf_counter()
            said = scores(target, indices)
            seconds.append(time.perf_counter() - began)
            truth = self.included[target][indices]
            found["auc"].append(membership.auc(said, truth, level=LEVEL).value)
            for rate in RATES:
                estimate = membership.tpr_at_fpr(said, truth, fpr=rate, level=LEVEL)
                found[tpr_name(rate)].append(estimate.value)
        inside, outside = self.accuracies
        return {
            "data": self.setup.source,
            "attack": title,
            "records": len(indices),
            **{name: _over_targets(values) for name, values in found.items()},
            "seconds": seconds[0],
            "accuracy_in": inside,
            "accuracy_out": outside,
        }

    def _ours(self, attack: Any, target: int, indices: Any) -> Any:
        from attacks.target import Target
        from attacks.view import expose

        whole = len(indices) == self.setup.pool
        candidates = self.job.records if whole else self.job.records.take(indices)
        shadows = self.shadows if whole else None
        model = self.models.one(target)
        given = Target(model, candidates, f"target {target}", population=self.population, shadows=shadows)
        view = expose(given, attack.requires, device=self.device)
        return attack.run(view, rng=np.random.default_rng(target)).scores

    def _estimator(self, target: int) -> Any:
        import torch
        from art.estimators.classification import PyTorchClassifier

        model, records = self.models.one(target), self.job.records
        return PyTorchClassifier(model, torch.nn.CrossEntropyLoss(), records.shape, records.classes, device_type="cpu")

    def _rule_based(self, target: int, indices: Any) -> Any:
        from art.attacks.inference.membership_inference import MembershipInferenceBlackBoxRuleBased

        records = self.job.records.take(indices)
        answer = MembershipInferenceBlackBoxRuleBased(self._estimator(target)).infer(records.x, records.y)
        return np.ravel(answer).astype(float)

    def _black_box(self, model: str, target: int, indices: Any) -> Any:
        from defenses.ensemble import module_logits

        if model not in self._fitted:
            self._fitted[model] = self._fit(model)
        said = _softmax(module_logits(self.models.one(target), self.job.records.x[indices]))
        answer = self._fitted[model].infer(None, self.job.records.y[indices], pred=said, probabilities=True)
        return np.asarray(answer)[:, -1].astype(float)

    def _fit(self, model: str) -> Any:
        from art.attacks.inference.membership_inference import MembershipInferenceBlackBox

        outputs, y = self.shadows.outputs(self.setup.shadows), self.job.records.y
        total = outputs.included.size
        chosen = np.random.default_rng(3).choice(total, min(ROWS, total), replace=False)
        shadow, record = np.unravel_index(chosen, outputs.included.shape)
        said, inside = _softmax(outputs.logits[shadow, record]), outputs.included[shadow, record]
        attack = MembershipInferenceBlackBox(self._estimator(0), attack_model_type=model)
        attack.fit(pred=said[inside], y=y[record[inside]], test_pred=said[~inside], test_y=y[record[~inside]])
        return attack


def _softmax(logits: Any) -> Any:
    from scipy.special import softmax

    return softmax(logits, axis=-1).astype(np.float32)


def _over_targets(values: Sequence[float | None]) -> list[float] | None:
    """Return mean and Student's limits, or None where a target has too few records to resolve the rate."""
    from scipy import stats

    if any(value is None for value in values):
        return None
    x = np.array(values, dtype=np.float64)
    if len(x) < 2:
        return [float(x[0])] * 3
    half = float(stats.t.ppf((1 + LEVEL) / 2, len(x) - 1) * x.std(ddof=1) / np.sqrt(len(x)))
    low, high = float(x.mean()) - half, float(x.mean()) + half
    return [float(x.mean()), max(0.0, low), min(1.0, high)]
