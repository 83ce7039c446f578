"""What stays in the private folder, who can read it, and that nothing in it is believed that somebody else wrote."""

import multiprocessing
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hostile import modest

from auditor.files.result_files import write_whole
from auditor.workspace import Workspace
from defenses.authentication import Authenticator, _authenticator, state_folder, user_authenticator
from defenses.errors import PlanError
from defenses.private_files import private_folder, write_private


def test_secrets_are_drawn_once_and_readable_by_their_owner_only(tmp_path: Path) -> None:
    before = os.umask(0)  # whatever it is
    try:
        one = Workspace(tmp_path / "one")
        assert one.secret_seed("c") == one.secret_seed("c")
    finally:
        os.umask(before)
    assert one.secret_seed("a" * 64) == Workspace(tmp_path / "one").secret_seed("a" * 64)
    assert one.secret_seed("a" * 64) != one.secret_seed("b" * 64)
    assert one.secret_seed("a" * 64) != Workspace(tmp_path / "two").secret_seed("a" * 64)
    assert one.secret_seed("a" * 64) > 2**200
    for path in [one.folder, *one.folder.rglob("*")]:
        assert path.stat().st_mode & 0o077 == 0, path


def test_a_secret_that_somebody_else_put_there_is_not_used(tmp_path: Path) -> None:
    place = Workspace(tmp_path)
    (tmp_path / "secrets").mkdir(mode=0o700)
    forged = tmp_path / "secrets" / f"seed-{'a' * 40}"
    for content in (bytes(32), b"", Authenticator(bytes(32)).seal(bytes(32), forged.name)):
        forged.write_bytes(content)
        assert place.secret_seed("a" * 64) > 2**200
    assert place.secret_seed("a" * 64) == Workspace(tmp_path).secret_seed("a" * 64)


def test_a_file_without_end_is_not_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Workspace(tmp_path / "work")
    before = place.secret_seed("content")
    with next((tmp_path / "work" / "secrets").glob("seed-*")).open("ab") as file:
        file.truncate(2**42)  # to read it would take an hour
    with modest(64):
        assert place.secret_seed("content") != before
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    with (state_folder() / "key").open("wb") as file:
        file.truncate(2**42)
    with pytest.raises(PlanError, match="must hold 32 bytes"):
        user_authenticator()


@pytest.mark.parametrize("mode", [0o750, 0o701, 0o722, 0o777])
def test_a_folder_that_others_can_reach_is_refused(mode: int, tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(mode)
    with pytest.raises(PlanError, match=f"mode {mode:04o}.*chmod 700"):
        Workspace(folder)


@pytest.mark.parametrize("part", ["secrets", "models", "claims"])
def test_a_part_that_others_can_reach_is_refused_before_anything_is_done(part: str, tmp_path: Path) -> None:
    folder = Workspace(tmp_path / "work").folder
    (folder / part).mkdir()
    (folder / part).chmod(0o777)
    with pytest.raises(PlanError, match=f"{part} has mode 0777"):
        Workspace(folder)
    (folder / part).rmdir()
    (folder / part).symlink_to(part)
    with pytest.raises(PlanError, match=f"{part} is not a folder"):
        Workspace(folder)


def test_a_folder_of_somebody_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("defenses.private_files.os.geteuid", lambda: tmp_path.stat().st_uid + 1)
    with pytest.raises(PlanError, match="belongs to another user"):
        Workspace(tmp_path)


def test_what_is_no_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PlanError, match="not a folder"):
        Workspace(tmp_path / "file")


def _seed(folder: str) -> int:
    return Workspace(Path(folder)).secret_seed("content")


def _user_key(state: str) -> bytes:
    os.environ["XDG_STATE_HOME"] = state
    _authenticator.cache_clear()
    return user_authenticator().key


@pytest.mark.parametrize("draw", [_seed, _user_key])
def test_processes_that_start_together_draw_one_key(draw: object, tmp_path: Path) -> None:
    with multiprocessing.get_context("fork").Pool(8) as pool:
        for trial in range(10):
            found = pool.map(draw, [str(tmp_path / str(trial))] * 8, chunksize=1)  # type: ignore[arg-type]
            assert len(set(found)) == 1


def test_the_key_lies_outside_of_the_work_folder_and_is_private(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that comes with a cloned repository brings everything that lies in it, so no key may."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    key = Workspace(tmp_path / "work").authenticator.key
    assert not [path for path in (tmp_path / "work").rglob("*") if path.is_file() and key in path.read_bytes()]
    path = state_folder() / "key"
    assert path.read_bytes() == key
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    record_key = Workspace(tmp_path / "work").record_key()
    assert record_key == Workspace(tmp_path / "elsewhere").record_key()  # so that reports of a user can be compared
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "other"))
    assert Workspace(tmp_path / "work").authenticator.key != key
    assert Workspace(tmp_path / "work").record_key() != record_key
    assert key.hex() not in repr(Authenticator(key))


def test_a_damaged_key_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    (state_folder() / "key").write_bytes(b"short")
    with pytest.raises(PlanError, match="damaged: it must hold 32 bytes"):
        user_authenticator()


def test_a_state_folder_that_cannot_be_made_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    with pytest.raises(PlanError, match="set XDG_STATE_HOME"):
        state_folder()


def test_a_commitment_binds_to_the_seed_and_hides_it(tmp_path: Path) -> None:
    place = Workspace(tmp_path)
    assert place.commitment("s", 1) == place.commitment("s", 1)
    assert place.commitment("s", 1) != place.commitment("s", 2)
    assert place.commitment("s", 1) != Workspace(tmp_path / "other").commitment("s", 1)  # salted


def test_a_private_file_is_never_open_to_others(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"old")
    path.chmod(0o644)
    before = os.umask(0)
    try:
        write_private(path, b"new")
    finally:
        os.umask(before)
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "page.html"
    path.write_text("before")

    def stopped(*given: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("defenses.private_files.os.replace", stopped)
        with pytest.raises(KeyboardInterrupt):
            write_whole(path, "after")
    assert path.read_text() == "before"
    write_whole(path, "after")
    assert [(each.name, each.read_text()) for each in tmp_path.iterdir()] == [("page.html", "after")]


def test_a_file_is_on_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    replace, flush = os.replace, os.fsync
    monkeypatch.setattr("defenses.private_files.os.replace", lambda *given: (done.append("replace"), replace(*given)))
    monkeypatch.setattr("defenses.private_files.os.fsync", lambda file: (done.append("fsync"), flush(file)))
    write_private(tmp_path / "f", b"new")
    assert done == ["fsync", "replace", "fsync"]
    done.clear()
    write_private(tmp_path / "f", b"new", durable=False)
    assert done == ["replace"]


def test_a_private_folder_is_made_with_its_parents(tmp_path: Path) -> None:
    assert private_folder(tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o700


def test_what_a_killed_process_left_of_a_file_is_removed_and_nothing_else(tmp_path: Path) -> None:
    killed = subprocess.run(
        [
            sys.executable,
            "-c",
            f"import os, sys\nsys.path[:0] = {sys.path!r}\n{KILLED.format(path=str(tmp_path / 'f'))}",
        ],
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    mine = left.with_name(left.name.replace(left.name.split("-")[-2], str(os.getpid())))
    mine.write_bytes(b"being written")
    other = left.with_name(left.name.replace(".f.", ".g."))
    other.write_bytes(b"of another file")
    write_private(tmp_path / "f", b"new")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([mine.name, other.name, "f"])


KILLED = """
from pathlib import Path
import defenses.private_files as files
files.os.replace = lambda *given: os.kill(os.getpid(), 9)
files.write_private(Path({path!r}), b"old")
"""
