"""Whatever breaks, a command says it in one sentence that a terminal shows as it is, and never exits with 0."""

import importlib.metadata
import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import typer
from typer.testing import CliRunner

from attacks.registry import ENTRY_POINTS, registered_attacks
from auditor.cli.errors import guarded, in_words
from auditor.cli.main import app
from auditor.cli.terminal import harmless
from auditor.files.result_files import write_whole
from defenses.errors import DataError, PlanError, PluginError
from reports.errors import ReportError

OUT_OF_MEMORY = type("OutOfMemoryError", (RuntimeError,), {})
ALLOCATOR = "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried 1 byte"


@pytest.mark.parametrize(
    ("error", "said", "code"),
    [
        (OSError(28, "No space left on device"), "the disk is full; make room", 4),
        (OSError(28, "No space left on device", "/x/y"), "the disk is full (/x/y)", 4),
        (RuntimeError("I/O error: No space left on device (os error 28)"), "the disk is full", 4),
        (OSError("4096 requested and 0 written"), "the disk is full", 4),
        (MemoryError(), "not enough memory (MemoryError)", 4),
        (OUT_OF_MEMORY("CUDA out of memory. Tried to allocate"), "not enough memory (OutOfMemoryError)", 4),
        (RuntimeError(ALLOCATOR), "not enough memory (RuntimeError)", 4),
        (FileNotFoundError(2, "No such file or directory", "plan.toml"), "plan.toml: No such file", 2),
        (OSError(5, "Input/output error"), "a file cannot be read or written: Input/output error", 4),
        (PlanError("bad\x1b[31m"), r"bad\x1b[31m", 2),
        (DataError("x" * 10**7), "x" * 100, 2),
        (ReportError("no"), "no", 2),
        (KeyError("k" * 10**6), "internal error, KeyError", 4),
    ],
)
def test_every_error_is_one_short_sentence(
    error: Exception, said: str, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit) as stop, guarded(debug=False):
        raise error
    shown = capsys.readouterr().err
    assert stop.value.exit_code == code == in_words(error)[1]
    assert said in shown
    assert "None" not in shown
    assert len(shown) < 1700
    assert shown.rstrip("\n").isprintable()


class Point:
    """An entry point of a package that does not work."""

    name, value = "mine", "mine.attack:Mine"
    dist = type("Dist", (), {"name": "mine-attacks", "version": "1.2"})

    def __init__(self, loaded: Any) -> None:
        self.loaded = loaded

    def load(self) -> Any:
        if isinstance(self.loaded, Exception):
            raise self.loaded
        return self.loaded


@pytest.mark.parametrize(
    ("loaded", "said"),
    [
        (ImportError("no module named 'gone'"), "cannot be loaded (ImportError: no module named 'gone')"),
        (dict, "is no complete Attack class"),
        (3, "is no complete Attack class"),
        ("taken", "is called 'lira', which is taken"),
    ],
)
def test_a_broken_plug_in_is_named_with_its_package(loaded: Any, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = registered_attacks()["lira"] if loaded == "taken" else loaded
    points = importlib.metadata.entry_points

    def with_ours(**given: Any) -> Any:
        return [Point(loaded)] if given.get("group") == ENTRY_POINTS else points(**given)

    monkeypatch.setattr(importlib.metadata, "entry_points", with_ours)
    registered_attacks.cache_clear()
    try:
        with pytest.raises(PluginError) as found:
            registered_attacks()
    finally:
        monkeypatch.undo()
        registered_attacks.cache_clear()
    assert said in str(found.value)
    assert "entry point 'mine' of package mine-attacks 1.2 (privacy_auditor.attacks: mine.attack:Mine)" in str(
        found.value
    )


def test_nothing_that_is_printed_commands_the_terminal() -> None:
    assert harmless("a\x1b[2J\x9b31m\r\x07b\n\tc") == "a\ufffd[2J\ufffd31m\ufffd\ufffdb\n\tc"


@pytest.fixture
def gated(tmp_path: Path) -> Path:
    """A folder with a report and a policy."""
    attack = {"name": "lira", "title": "a\x1b[31m", "paper": "", "status": "failed", "reason": "\x00<b>\x07"}
    subject = {"title": "t\x1b[2J", "model": "m", "model_digest": "", "data": "d", "data_digest": "", "scheme": "none"}
    report = {
        "schema_version": "2.0",
        "subject": subject | {"members": 1, "nonmembers": 1, "population": 0, "inclusion": "fixed"},
        "verdict": "error",
        "headline": "h\x1b[31m",
        "findings": [],
        "attacks": [attack],
        "epsilons": {},
        "blind_spots": [],
        "provenance": {"plan": {}, "plan_digest": "", "attempt": 1, "seed_commitment": "", "device": "cpu"},
        "timing": {"started": ""},
    }
    (tmp_path / "report.json").write_text(json.dumps(report))
    (tmp_path / "policy.toml").write_text('required_attacks = ["lira"]\n')
    return tmp_path


def call(folder: Path, *more: str) -> Any:
    return CliRunner().invoke(
        app, ["gate", str(folder / "report.json"), "--policy", str(folder / "policy.toml"), *more]
    )


def test_the_gate_writes_whole_files_and_no_escapes(gated: Path) -> None:
    names = {"--junit": "j.xml", "--sarif": "s.json", "--markdown": "m.md"}
    found = call(gated, *(word for option, name in names.items() for word in (option, str(gated / name))))
    assert found.exit_code == 4
    assert "\x1b" not in found.output
    ElementTree.parse(gated / "j.xml")
    json.loads((gated / "s.json").read_text())
    assert not {"\x1b", "\x00"} & set((gated / "m.md").read_text())
    assert not list(gated.glob("*.part"))


def test_the_gate_says_on_standard_error_why_it_decides_nothing(gated: Path) -> None:
    (gated / "policy.toml").write_text('[[rules]]\nmeasure = "\\u001b[2J"\nmaximum = 1\n')
    found = call(gated)
    assert found.exit_code == 2
    assert found.stderr.startswith("auditor: The policy does not fit the report")
    assert found.stderr.rstrip("\n").isprintable()


@pytest.mark.parametrize("target", ["policy.toml", "/proc/self/mem"])
@pytest.mark.parametrize("command", ["gate", "render"])
def test_links_that_open_and_cannot_be_read_are_refused(command: str, target: str, gated: Path) -> None:
    name = "policy.toml" if command == "gate" else "report.json"
    (gated / name).unlink()
    (gated / name).symlink_to(target.replace("policy.toml", name))
    found = call(gated) if command == "gate" else CliRunner().invoke(app, ["render", str(gated / name)])
    assert found.exit_code == 2
    assert f"{name} cannot be read" in found.stderr


def test_the_gate_leaves_no_earlier_decision_behind(gated: Path) -> None:
    (gated / "j.xml").write_text("green")
    (gated / "policy.toml").write_text("maximum = nan")
    found = call(gated, "--junit", str(gated / "j.xml"))
    assert found.exit_code == 2
    assert not (gated / "j.xml").exists()


def test_the_gate_says_what_it_cannot_write(gated: Path) -> None:
    found = call(gated, "--junit", str(gated / "no" / "j.xml"))
    assert found.exit_code == 2
    assert "No such file or directory; give a path that can be read and written" in found.output
    found = call(gated, "--junit", "/dev/full")
    assert found.exit_code == 4
    assert "the disk is full" in found.output


def test_the_gate_does_not_write_over_what_it_reads(gated: Path) -> None:
    before = (gated / "report.json").read_text()
    assert call(gated, "--markdown", str(gated / "report.json")).exit_code == 2
    assert (gated / "report.json").read_text() == before


def test_a_file_that_cannot_be_written_whole_is_what_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.md"
    path.write_text("before")

    def full(file: int) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr("defenses.private_files.os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_whole(path, "after")
    assert path.read_text() == "before"
    assert [file.name for file in tmp_path.iterdir()] == ["x.md"]


def test_ctrl_c_says_that_nothing_was_planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*given: object, **named: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("auditor.canaries.planting._make", stopped)
    monkeypatch.chdir(tmp_path)
    found = CliRunner().invoke(app, ["plant", "digits", "--out", "o", "--secret", "s", "--canaries", "60", "--quiet"])
    assert found.exit_code == 130
    assert "Stopped. Nothing was planted" in found.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("goals", [("loop", "s"), ("o", "loop")])
def test_a_link_to_itself_is_refused(goals: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("loop").symlink_to("loop")
    found = CliRunner().invoke(
        app, ["plant", "digits", "--out", goals[0], "--secret", goals[1], "--canaries", "60", "--quiet"]
    )
    assert found.exit_code == 2
    assert "; give" in found.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["loop"]
