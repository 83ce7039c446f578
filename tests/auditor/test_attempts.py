"""How often the same thing was audited, counted against an owner who would rather it was not."""

import multiprocessing
import os
import shutil
from pathlib import Path

import pytest

from auditor.attempts import AttemptKey, count_attempt
from auditor.workspace import Workspace
from defenses.authentication import _authenticator, state_folder


def records(count: int, *, first: int = 0) -> list[bytes]:
    return [number.to_bytes(8) for number in range(first, first + count)]


def attempts(place: Workspace, *runs: tuple[AttemptKey, str]) -> list[int]:
    return [count_attempt(place, *run).number for run in runs]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return Workspace(tmp_path / "work")


def test_the_same_run_keeps_its_number(place: Workspace) -> None:
    x, y = AttemptKey("x", "r", records(50)), AttemptKey("y", "r", records(50, first=100))
    assert attempts(place, (x, "1"), (x, "2"), (x, "1"), (y, "9"), (x, "3")) == [1, 2, 1, 1, 3]


@pytest.mark.parametrize("count", [40, 4000])
def test_another_path_or_a_few_other_records_are_no_other_subject(count: int, place: Workspace) -> None:
    """Whoever drops a member, adds one, saves the model anew or names another work folder goes on counting."""
    whole = records(count)
    runs = [
        (AttemptKey("model", "recipe", whole), "a"),
        (AttemptKey("model", "recipe", whole[1:]), "b"),
        (AttemptKey("model", "recipe", [*whole, b"one more"]), "c"),
        (AttemptKey("saved anew", "recipe", whole[:-1]), "d"),
        (AttemptKey("saved anew", "another recipe", records(count, first=10**6)), "e"),  # the same weights
        (AttemptKey("third", "recipe", whole[: int(0.7 * count)]), "f"),
    ]
    assert attempts(place, *runs) == [1, 2, 3, 4, 5, 6]
    assert attempts(Workspace(place.folder.parent / "elsewhere"), (runs[0][0], "g")) == [7]


@pytest.mark.parametrize("count", [40, 4000])
def test_other_records_or_another_recipe_are_another_subject(count: int, place: Workspace) -> None:
    whole = records(count)
    assert attempts(
        place,
        (AttemptKey("a", "recipe", whole), "1"),
        (AttemptKey("b", "another recipe", whole), "1"),
        (AttemptKey("c", "recipe", records(count, first=count)), "1"),
        (AttemptKey("d", "recipe", records(count, first=-(-2 * count // 3) + 2 * count)), "1"),
    ) == [1, 1, 1, 1]


def test_a_deleted_work_folder_loses_no_count(place: Workspace) -> None:
    subject = AttemptKey("m", "r", records(50))
    attempts(place, (subject, "1"))
    shutil.rmtree(place.folder)
    found = count_attempt(Workspace(place.folder), subject, "2")
    assert (found.number, found.lost) == (2, False)


def test_a_deleted_or_forged_list_is_said(place: Workspace) -> None:
    subject = AttemptKey("m", "r", records(50))
    attempts(place, (subject, "1"), (subject, "2"))
    kept = (state_folder() / "attempts").read_bytes()
    for content in (None, kept[:-1], b"", kept.replace(b'"1", ', b"")):
        (state_folder() / "attempts").unlink()
        if content is not None:
            (state_folder() / "attempts").write_bytes(content)
        found = count_attempt(place, subject, "3")
        assert (found.number, found.lost) == (1, True)


def test_the_list_names_no_record(place: Workspace) -> None:
    names = [f"record of person {number}".encode() for number in range(50)]
    attempts(place, (AttemptKey("m", "r", names), "1"))
    kept = (state_folder() / "attempts").read_bytes()
    assert b"person" not in kept


def _count(given: tuple[str, str, int]) -> int:
    state, work, number = given
    os.environ["XDG_STATE_HOME"] = state
    _authenticator.cache_clear()
    return count_attempt(Workspace(Path(work)), AttemptKey("m", "r", records(50)), str(number)).number


def test_processes_that_count_together_lose_no_entry(tmp_path: Path) -> None:
    with multiprocessing.get_context("fork").Pool(8) as pool:
        for trial in range(5):
            state, work = str(tmp_path / f"state-{trial}"), str(tmp_path / f"work-{trial}")
            found = pool.map(_count, [(state, work, number) for number in range(16)], chunksize=1)
            assert sorted(found) == list(range(1, 17))
