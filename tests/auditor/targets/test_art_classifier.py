"""ART classifiers handed over as they are: their answers, their gradients where they have them, and a whole audit."""

import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from art.defences.postprocessor import Rounded
from art.estimators.classification import PyTorchClassifier, SklearnClassifier
from scipy.special import log_softmax
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import roc_auc_score
from torch import nn

import auditor
from attacks.capabilities import Capability
from attacks.membership.loss_threshold import LossThreshold
from attacks.target import Target
from attacks.threat_model import ThreatModel
from attacks.view import expose
from auditor.targets.art_classifier import from_art, record_scores
from defenses.ensemble import module_logits
from defenses.errors import NotApplicableError
from defenses.records import Image, Records
from reports.records.report import AttackStatus, Status

SHAPE, CLASSES = (1, 8, 8), 10


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray]:
    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    return (x[order] / 16).astype(np.float32).reshape(-1, *SHAPE), y[order].astype(np.int64)


def classifier(model: nn.Module, **more: Any) -> PyTorchClassifier:
    optimizer = torch.optim.Adam(model.parameters(), lr=0.005)
    return PyTorchClassifier(
        model, nn.CrossEntropyLoss(), SHAPE, CLASSES, optimizer, clip_values=(0, 1), device_type="cpu", **more
    )


def network(*after: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, CLASSES), *after)


@pytest.mark.parametrize(
    ("preprocessing", "after"),
    [((0.0, 1.0), ()), ((0.3, 0.5), ()), ((0.0, 1.0), (nn.Softmax(1),)), ((0.3, 0.5), (nn.Softmax(1),))],
)
def test_a_network_is_handed_over_with_what_stands_before_and_after_it(
    preprocessing: tuple[float, float], after: tuple[nn.Module, ...], digits: tuple[np.ndarray, np.ndarray]
) -> None:
    estimator = classifier(network(*after), preprocessing=preprocessing)
    x = digits[0][:50]
    predicted = estimator.predict(x)
    logits = module_logits(from_art(estimator), x)
    expected = np.log(predicted) if after else predicted
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)
    target = Target(from_art(estimator), Records(x, digits[1][:50], CLASSES, Image()), "d")
    expose(target, ThreatModel(frozenset({Capability.WEIGHTS}))).module()  # refuses what has no gradient


@pytest.mark.parametrize(
    "more",
    [
        {"postprocessing_defences": Rounded(decimals=1)},
        {"preprocessing": (np.full(SHAPE, 0.3, dtype=np.float32), np.full(SHAPE, 0.5, dtype=np.float32))},
    ],
)
def test_what_cannot_be_carried_over_is_asked_and_has_no_gradient(
    more: dict[str, Any], digits: tuple[np.ndarray, np.ndarray]
) -> None:
    estimator = classifier(network(), **more)
    x = digits[0][:50]
    target = Target(from_art(estimator), Records(x, digits[1][:50], CLASSES, Image()), "d")
    view = expose(target, ThreatModel(frozenset({Capability.LOGITS})))
    np.testing.assert_allclose(view.logits(x), estimator.predict(x), rtol=1e-5, atol=1e-6)
    with pytest.raises(NotApplicableError, match="differentiated"):
        expose(target, ThreatModel(frozenset({Capability.WEIGHTS}))).module()


def test_a_classifier_of_scikit_learn_is_asked(digits: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = digits[0].reshape(-1, 64), digits[1]
    forest = RandomForestClassifier(20, random_state=0).fit(x[:300], y[:300])
    module = from_art(SklearnClassifier(forest))
    expected = log_softmax(np.log(np.maximum(forest.predict_proba(x[:40]), 1e-12)), axis=1)
    np.testing.assert_allclose(log_softmax(module_logits(module, x[:40]), axis=1), expected, atol=1e-4)


@pytest.mark.parametrize("wrong", [object(), classifier(nn.Sequential(nn.Flatten(), nn.Linear(64, 3)))])
def test_what_is_no_classifier_is_refused(wrong: object) -> None:
    with pytest.raises(ValueError, match=r"no ART classifier|predicts shape \(8, 3\)"):
        from_art(wrong)


def test_a_classifier_that_overfits_is_audited_from_end_to_end(
    digits: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    x, y = digits
    noisy = np.random.default_rng(1).integers(0, CLASSES, len(y))  # random labels can only be learned by heart
    members, nonmembers, population = (slice(0, 200), slice(200, 400), slice(400, 600))
    estimator = classifier(network())
    estimator.fit(x[members], np.eye(CLASSES, dtype=np.float32)[noisy[members]], batch_size=32, nb_epochs=150)

    path = record_scores(
        from_art(estimator),
        tmp_path / "scores.npz",
        members=(x[members], noisy[members]),
        nonmembers=(x[nonmembers], noisy[nonmembers]),
        population=(x[population], noisy[population]),
    )
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    plan = auditor.parse_plan(
        f'title = "ART"\nslices = []\n[scores]\npath = "{path}"\n'
        '[[attacks]]\nname = "loss_threshold"\n[[attacks]]\nname = "population"\n[[attacks]]\nname = "art_rule_based"\n'
        '[[limits]]\nmeasure = "auc"\nmaximum = 0.6\n'
    )
    audit = auditor.run_audit(plan, auditor.RunContext(auditor.Workspace(tmp_path / "work"), device="cpu"))
    assert audit.report.verdict is Status.LEAKS
    results = {attack.name: attack for attack in audit.report.attacks}
    assert {attack.status for attack in results.values()} == {AttackStatus.RAN}
    both = Records(x[:400], noisy[:400], CLASSES, Image())
    own = LossThreshold()
    target = Target(from_art(estimator), both, "d")
    direct = own.run(expose(target, own.requires), rng=np.random.default_rng(0)).scores
    auc = results["loss_threshold"].measures["auc"].value
    assert auc == pytest.approx(roc_auc_score(np.arange(400) < 200, direct), abs=1e-3)
    assert auc > 0.9


@pytest.mark.parametrize(
    ("name", "labels", "said"),
    [("scores.csv", 5, "ends in .npz"), ("scores.npz", 4, "one class for each record"), ("scores.npz", 0, "one class")],
)
def test_a_file_that_could_not_be_audited_is_not_written(name: str, labels: int, said: str, tmp_path: Path) -> None:
    x, y = np.zeros((5, *SHAPE), dtype=np.float32), np.zeros(5, dtype=np.int64)
    with pytest.raises(ValueError, match=said):
        record_scores(network(), tmp_path / name, members=(x, y[:labels]), nonmembers=(x, y))
    assert not list(tmp_path.iterdir())
