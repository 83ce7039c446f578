"""Audits of recorded outputs: the same answers as with the model, and no answer from a file that does not fit."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from attacks.recorded_models import RecordedModel
from auditor.audit import run_audit
from auditor.context import RunContext
from auditor.plan.plan import Plan, parse_plan
from auditor.workspace import Workspace
from defenses.errors import DataError, NotApplicableError, PlanError
from reports.records.report import AttackStatus, Status

N, K, Z, C = 400, 8, 200, 3
PLAN = '{head}\n[scores]\npath = "{path}"\n'


def outputs(seed: int = 0) -> dict[str, np.ndarray]:
    """Being in raises the true class's logit by 2, on records of different difficulty; shadows see it alike."""
    rng = np.random.default_rng(seed)
    label, base = rng.integers(0, C, N), rng.normal(scale=2, size=(N, C))

    def said(member: np.ndarray) -> np.ndarray:
        return base + 2.0 * member[:, None] * np.eye(C)[label] + rng.normal(scale=0.4, size=(N, C))

    member, shadow_member = rng.random(N) < 0.5, rng.random((K, N)) < 0.5
    return {
        "member": member,
        "label": label,
        "logits": said(member),
        "shadow_member": shadow_member,
        "shadow_logits": np.stack([said(one) for one in shadow_member]),
        "population_label": rng.integers(0, C, Z),
        "population_logits": rng.normal(scale=2, size=(Z, C)),
        "shadow_population_logits": rng.normal(scale=2, size=(K, Z, C)),
    }


def plan(path: str, head: str = "") -> Plan:
    written = path.replace("\x1b", "\\u001b").replace("\n", "\\n")
    return parse_plan(PLAN.format(head=f'title = "recorded"\nshadows = {K}\n{head}', path=written))


def audit(arrays: dict[str, np.ndarray], folder: Path, head: str = "", name: str = "scores.npz"):  # type: ignore[no-untyped-def]
    np.savez(folder / name, **arrays)
    return run_audit(plan(name, head), RunContext(Workspace(folder / "work"), plan_folder=folder))


def area(found, attack: str) -> float:  # type: ignore[no-untyped-def]
    return float(roc_auc_score(found.included, found.scores[attack]))


def test_every_usual_attack_runs_on_recorded_outputs(tmp_path: Path) -> None:
    found = audit(outputs(), tmp_path, 'limits = [{measure = "auc", maximum = 0.6}]')
    assert {entry.status for entry in found.report.attacks} == {AttackStatus.RAN}
    assert found.report.verdict is Status.LEAKS
    assert found.report.subject.model == "recorded outputs"
    assert area(found, "lira") > 0.95 > 0.85 > area(found, "loss_threshold")
    assert found.report.epsilons.shown is None  # a fixed split shows no epsilon


def test_fair_coins_show_an_epsilon_against_a_claim(tmp_path: Path) -> None:
    head = "[claim]\nepsilon = 0.2\ndelta = 1e-5\n"
    text = PLAN.format(head=f'title = "recorded"\nshadows = {K}\n{head}', path="scores.npz")
    np.savez(tmp_path / "scores.npz", **outputs())
    chosen = parse_plan(text + 'inclusion = "independent_coins"\n')
    found = run_audit(chosen, RunContext(Workspace(tmp_path / "work"), plan_folder=tmp_path))
    assert found.report.epsilons.shown is not None
    assert found.report.verdict is Status.VIOLATED


def test_the_answers_are_those_of_the_logits_whatever_was_recorded(tmp_path: Path) -> None:
    arrays = outputs()
    expected = audit(arrays, tmp_path / "a" if (tmp_path / "a").mkdir() is None else tmp_path)
    soft = {
        name: np.exp(value - np.log(np.exp(value).sum(-1, keepdims=True))) for name, value in arrays.items()
        if name.endswith("logits")
    }  # fmt: skip
    as_probabilities = {name.replace("logits", "probabilities"): value for name, value in soft.items()}
    rest = {name: value for name, value in arrays.items() if not name.endswith("logits")}
    (tmp_path / "b").mkdir()
    found = audit(rest | as_probabilities, tmp_path / "b")
    for attack in ("loss_threshold", "lira", "rmia"):
        assert area(found, attack) == pytest.approx(area(expected, attack), abs=2e-3)

    def loss(name: str, labels: np.ndarray) -> np.ndarray:
        picked = np.broadcast_to(labels, soft[name].shape[:-1])[..., None]
        return -np.log(np.take_along_axis(soft[name], picked, axis=-1)[..., 0])

    losses = {
        name.replace("logits", "loss"): loss(name, arrays["population_label" if "population" in name else "label"])
        for name in soft
    }
    (tmp_path / "c").mkdir()
    found = audit(rest | losses, tmp_path / "c")
    for attack in ("loss_threshold", "lira", "rmia"):
        assert area(found, attack) == pytest.approx(area(expected, attack), abs=2e-3)


def test_large_scores_keep_their_order(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    member = rng.random(300) < 0.5
    score = 5000.0 + 40 * member + rng.normal(scale=20, size=300)
    found = audit({"member": member, "score": score}, tmp_path, head='attacks = [{name = "loss_threshold"}]')
    assert area(found, "loss_threshold") == pytest.approx(roc_auc_score(member, score))


def test_a_csv_is_enough(tmp_path: Path) -> None:
    arrays = outputs()
    rows = np.column_stack([arrays["member"], arrays["label"], arrays["logits"]])
    header = "member,label,logits_0,logits_1,logits_2"
    np.savetxt(tmp_path / "scores.csv", rows, delimiter=",", header=header, comments="")
    chosen = plan("scores.csv", 'attacks = [{name = "loss_threshold"}]')
    found = run_audit(chosen, RunContext(Workspace(tmp_path / "work"), plan_folder=tmp_path))
    assert area(found, "loss_threshold") == pytest.approx(
        roc_auc_score(arrays["member"], [row[c] - np.log(np.exp(row).sum()) for row, c in
                                         zip(arrays["logits"], arrays["label"], strict=True)])
    )  # fmt: skip


def test_what_was_not_recorded_is_not_applicable(tmp_path: Path) -> None:
    arrays = {name: value for name, value in outputs().items() if "shadow" not in name and "population" not in name}
    head = 'attacks = [{name = "lira"}, {name = "rmia"}, {name = "gradient_norm"}, {name = "loss_threshold"}]'
    found = {entry.name: entry for entry in audit(arrays, tmp_path, head).report.attacks}
    assert found["loss_threshold"].status is AttackStatus.RAN
    for name, lacking in (("lira", "recipe"), ("rmia", "population"), ("gradient_norm", "weights")):
        assert found[name].status is AttackStatus.NOT_APPLICABLE
        assert lacking in str(found[name].reason)
    found = {e.name: e for e in audit(outputs(), tmp_path, 'attacks = [{name = "lira", shadows = 9}]').report.attacks}
    assert "set shadows = 8" in str(found["lira"].reason)


def test_no_attack_is_run_on_the_stand_ins_of_records(tmp_path: Path) -> None:
    names = ("quantile", "boundary_distance", "augmentation_agreement")
    head = f"attacks = [{', '.join(f'{{name = {name!r}}}' for name in names)}]".replace("'", '"')
    for entry in audit(outputs(), tmp_path, head).report.attacks:
        assert entry.status is AttackStatus.NOT_APPLICABLE
        assert "needs records" in str(entry.reason)
    model = RecordedModel(np.zeros((5, C)))
    for x in ([[0.5]], [[5.0]], [[-1.0]], [[1.0, 2.0]]):
        with pytest.raises(NotApplicableError, match="not among the recorded"):
            model.logits(np.array(x, dtype=np.float32))


BAD = {
    "nan": (lambda a: a["logits"].__setitem__((0, 0), np.nan), "not finite"),
    "all members": (lambda a: a["member"].__setitem__(slice(None), True), "members"),
    "no labels": (lambda a: a.pop("label"), "label is missing"),
    "label out of range": (lambda a: a["label"].__setitem__(0, C), "classes 0..2"),
    "two kinds": (lambda a: a.__setitem__("loss", np.ones(N)), "exactly one"),
    "unknown array": (lambda a: a.__setitem__("logit", np.ones(N)), "unknown"),
    "other shape": (lambda a: a.__setitem__("shadow_member", a["shadow_member"][:, 1:]), "shape"),
    "no masks": (lambda a: a.pop("shadow_member"), "shadow_member is missing"),
    "text": (lambda a: a.__setitem__("member", np.array(["yes"] * N)), "not numbers"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_file_that_does_not_fit_is_refused(what: str, tmp_path: Path) -> None:
    arrays = outputs()
    spoil, said = BAD[what]
    spoil(arrays)
    with pytest.raises(DataError, match=said):
        audit(arrays, tmp_path)


def test_the_name_of_a_file_does_not_reach_the_terminal_as_it_is(tmp_path: Path) -> None:
    arrays = outputs() | {"member": np.ones(N)}
    with pytest.raises(DataError, match="400 of 400 records are members") as caught:
        audit(arrays, tmp_path, name="a\x1b[2J\n.npz")
    assert str(caught.value).isprintable()


def test_a_plan_with_more_than_scores_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="leave out model"):
        parse_plan(PLAN.format(head='title = "x"\n[model]\narchitecture = "mlp"', path="scores.npz"))
    with pytest.raises(DataError, match=r"npz or \.csv"):
        run_audit(plan("scores.txt"), RunContext(Workspace(tmp_path / "work"), plan_folder=tmp_path))
    with pytest.raises(DataError, match="cannot be read"):
        run_audit(plan("missing.npz"), RunContext(Workspace(tmp_path / "work"), plan_folder=tmp_path))
