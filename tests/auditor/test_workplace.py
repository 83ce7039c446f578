"""What stays in the private folder, and who can read it."""

from pathlib import Path

import pytest

from auditor.workplace import Workplace, write_private, write_whole


def test_secrets_are_drawn_once_and_readable_by_their_owner_only(tmp_path: Path) -> None:
    one = Workplace(tmp_path / "one")
    assert one.record_key() == one.record_key()
    assert one.secret_seed("a" * 64) == Workplace(tmp_path / "one").secret_seed("a" * 64)
    assert one.secret_seed("a" * 64) != one.secret_seed("b" * 64)
    assert one.record_key() != Workplace(tmp_path / "two").record_key()
    assert one.secret_seed("a" * 64) > 2**200
    for path in [one.folder, *one.folder.rglob("*")]:
        assert path.stat().st_mode & 0o077 == 0, path


def test_a_commitment_binds_to_the_seed_and_hides_it(tmp_path: Path) -> None:
    place = Workplace(tmp_path)
    assert place.commitment("s", 1) == place.commitment("s", 1)
    assert place.commitment("s", 1) != place.commitment("s", 2)
    assert place.commitment("s", 1) != Workplace(tmp_path / "other").commitment("s", 1)  # salted


def test_the_same_run_is_one_attempt(tmp_path: Path) -> None:
    place = Workplace(tmp_path)
    runs = [("x", "1"), ("x", "2"), ("x", "1"), ("y", "9"), ("x", "3")]
    assert [place.attempt(*run) for run in runs] == [1, 2, 1, 1, 3]


def test_a_private_file_is_never_open_to_others(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"old")
    path.chmod(0o644)
    write_private(path, b"new")
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "page.html"
    path.write_text("before")

    def stopped(*given: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("auditor.workplace.os.replace", stopped)
        with pytest.raises(KeyboardInterrupt):
            write_whole(path, "after")
    assert path.read_text() == "before"
    write_whole(path, "after")
    assert [(each.name, each.read_text()) for each in tmp_path.iterdir()] == [("page.html", "after")]
