"""Hostile work folders: what lies in them is refused or ignored, and made again."""

import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

from hostile_case import MODEL, TRAINING, Case, Content, Scene, link, sparse
from hostile_programs import programs

PLAN = (
    (
        'title = "w"\nseed = 1\nshadows = 2\n[data]\nsource = "../shared/in.npz"\npool = 30\n[[attacks]]\n'
        'name = "loss_threshold"\n[control]\nenabled = false\n'
    )
    + MODEL
    + TRAINING
)
STATE = {"XDG_STATE_HOME": "{folder}/state"}
GIB = 2**30


def folders(scene: Scene) -> list[Case]:
    """Return hostile work folders; `shared/work` and `shared/state` are those of an audit that went well."""
    program = programs(scene)["os.system in protocol 2"]
    forged = pickle.dumps({"architecture": "subprocess:Popen", "options": {"args": scene.shell}})
    items: dict[str, Content] = {
        "pickles": program,
        "names of code": bytes(32) + forged,
        "nothing": b"",
        "deep JSON": b"[" * 100_000,
        "FIFOs": os.mkfifo,
        "folders": Path.mkdir,
        "devices": link("/dev/zero"),
        "sparse files of 8 GiB": sparse(8 * GIB),
    }
    cases = [
        Case("work folder", f"{part} are {name}", _used(scene, part, content), may_run=True, environment=STATE)
        for part in ("models", "claims", "secrets")
        for name, content in items.items()
    ]
    keys = {
        f"the key is {name}": {**_used(scene, "", b""), "state/privacy-auditor/key": _instead(content)}
        for name, content in (*items.items(), ("sparse, of 2**40 bytes", sparse(2**40)))
    }
    cases += [Case("work folder", name, files, may_run=True, environment=STATE) for name, files in keys.items()]
    whole: dict[str, Content] = {
        "open to all": lambda path: (path.mkdir(), path.chmod(0o777)),
        "open to the group": lambda path: (path.mkdir(), path.chmod(0o750)),
        "a file": b"",
        "a FIFO": os.mkfifo,
        "a device": link("/dev/null"),
        "a link to itself": link(".auditor"),
        "a link to a folder that is open": link("/tmp"),
    }
    refused = {name: {"plan.toml": PLAN, ".auditor": content} for name, content in whole.items()}
    for part in ("models", "claims", "secrets"):
        refused[f"{part} is a file"] = {"plan.toml": PLAN, ".auditor": _private, f".auditor/{part}": b""}
        refused[f"{part} is open"] = {"plan.toml": PLAN, ".auditor": _private, f".auditor/{part}": whole["open to all"]}
        refused[f"{part} is a link to itself"] = {
            "plan.toml": PLAN,
            ".auditor": _private,
            f".auditor/{part}": link(part),
        }
    return cases + [Case("work folder", name, files, environment=STATE) for name, files in refused.items()]


def _private(path: Path) -> None:
    path.mkdir(0o700)


def _used(scene: Scene, part: str, content: Content) -> dict[str, Content]:
    """Return the work folder of an audit that went well, with every item of one part replaced."""

    def copied(path: Path) -> None:
        shutil.copytree(scene.shared / "work", path)
        for item in (path / part).iterdir() if part else ():
            _instead(content)(item)

    return {"plan.toml": PLAN, ".auditor": copied, "state": lambda path: shutil.copytree(scene.shared / "state", path)}


def _instead(content: Content) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        path.unlink(missing_ok=True)
        if callable(content):
            content(path)
        else:
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
            path.chmod(0o600)

    return make
