"""A planting that is killed leaves nothing that passes for one, and the next call says or does what is right."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from plant_kill_points import Trial

from auditor.canaries import planting as planting
from auditor.canaries.planting import plant
from auditor.canaries.request import find_kind
from auditor.canaries.sealed_coins import SealedCoins
from auditor.canaries.staging import Staging, staged
from auditor.plan.sections import Source
from defenses.errors import DataError, PlanError

PROGRAM = Path(__file__).parent / "plant_kill_points.py"
ALL = {"nothing", "sealed file", "all"}


@pytest.mark.parametrize(
    ("form", "stride"),
    [
        ("npz", 1),
        ("csv", 3),
        ("folder", 12),
        pytest.param("csv", 1, marks=pytest.mark.slow),
        pytest.param("folder", 1, marks=pytest.mark.slow),
    ],
)
def test_a_kill_at_any_step_is_mended_by_the_next_call(form: str, stride: int, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(PROGRAM), form, str(tmp_path), str(stride)],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["faults"] == {}
    assert found["whole"] == []
    assert set(found["states"]) == ALL or stride > 1
    assert found["steps"] > 30


@pytest.fixture
def trial(tmp_path: Path) -> Trial:
    return Trial("npz", tmp_path)


def stopped_between(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave what a kill leaves that falls between the two names."""
    with monkeypatch.context() as patch:
        patch.setattr(Staging, "empty", lambda staging: None)
        patch.setattr(os, "rename", lambda *_: (_ for _ in ()).throw(OSError(5, "stopped")))
        patch.setattr(Path, "unlink", lambda *_, **__: None)
        with pytest.raises(DataError, match="stopped"):
            trial.plant()
    assert trial.state() == "sealed file"


def test_coins_without_data_are_named_where_the_next_call_has_others(
    trial: Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped_between(trial, monkeypatch)
    first, trial.secret = trial.secret, trial.folder / "others.sealed"
    with pytest.raises(PlanError, match="nothing was trained on those coins") as refused:
        trial.plant()
    assert f"--secret {first}" in str(refused.value)
    trial.secret = first
    trial.plant()
    assert trial.faults() == []


def test_coins_that_are_in_use_are_never_undone(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    stopped_between(trial, monkeypatch)
    coins = SealedCoins.read(trial.secret)
    trial.out = trial.folder / "elsewhere"  # whose data these coins are cannot be known from here
    with pytest.raises(DataError, match="never overwritten"):
        trial.plant()
    assert SealedCoins.read(trial.secret).commitment == coins.commitment
    assert not trial.out.exists()


def test_what_fails_between_the_names_leaves_neither(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", interrupted)
        with pytest.raises(KeyboardInterrupt):
            trial.plant()
    assert {entry.name for entry in trial.folder.iterdir()} == trial.before


def test_of_two_at_once_one_wins_and_the_other_gets_a_sentence(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    make = planting._make

    def make_and_let_another_try(*arguments: object, **named: object) -> SealedCoins:
        monkeypatch.setattr(planting, "_make", make)
        for out, secret in ((trial.out, trial.folder / "s"), (trial.folder / "o", trial.secret)):
            with pytest.raises(PlanError, match="another auditor plant is writing"):
                plant(trial.source, kind=find_kind("blank"), canaries=50, out=out, secret=secret, folder=trial.folder)
        return make(*arguments, **named)

    monkeypatch.setattr(planting, "_make", make_and_let_another_try)
    trial.plant()
    assert trial.faults() == []
    assert {entry.name for entry in trial.folder.iterdir()} - trial.before == {"new", "coins.sealed"}


@pytest.mark.parametrize("late", ["out", "secret"])
def test_what_appears_meanwhile_is_not_replaced(late: str, trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    make = planting._make
    theirs, other = (trial.out / "file", trial.secret) if late == "out" else (trial.secret, trial.out)

    def make_late(*arguments: object, **named: object) -> SealedCoins:
        theirs.parent.mkdir(exist_ok=True)
        theirs.write_text("theirs")
        return make(*arguments, **named)

    monkeypatch.setattr(planting, "_make", make_late)
    with pytest.raises(DataError, match="cannot be made"):
        trial.plant()
    assert theirs.read_text() == "theirs"
    assert not other.exists()
    assert not list(trial.folder.rglob("*.planting"))


def test_a_hidden_folder_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / ".coins.planting").symlink_to(tmp_path / "theirs")
    with pytest.raises(DataError, match="not made by you"), staged(tmp_path / "coins"):
        pass
    assert not list((tmp_path / "theirs").iterdir())


@pytest.mark.parametrize("umask", [0o000, 0o377])
def test_modes_do_not_depend_on_the_umask(trial: Trial, umask: int) -> None:
    before = os.umask(umask)
    try:
        with staged(trial.out) as data:
            assert data.folder.stat().st_mode & 0o777 == 0o700
    finally:
        os.umask(before)


def test_the_working_folder_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(PlanError, match="the working folder"):
        plant(Source(source="digits"), kind=find_kind("blank"), canaries=50, out=Path(), secret=tmp_path / "coins")
