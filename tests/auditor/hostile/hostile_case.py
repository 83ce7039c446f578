"""What a case of the campaign is: hostile files in a folder of their own, and the command that is to read them."""

import os
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Content = bytes | str | Callable[[Path], object]

BUDGET = "3G"
"""What every audit may read; stated, so that a larger machine does not read more."""

MODEL = '[model]\narchitecture = "mlp"\noptions = {hidden = [4]}\n'
TRAINING = "[training]\nepochs = 1\nbatch_size = 8\nlearning_rate = 0.1\n"
AUDIT = ("audit", "plan.toml", "--out", "out", "--quiet", "--device", "cpu", "--max-memory", BUDGET)


@dataclass(frozen=True)
class Case:
    """One hostile file, or folder.

    Attributes:
        kind: What it claims to be.
        name: What is wrong with it.
        files: What to put into an empty folder: content by path, or a function that makes what is there.
        arguments: Of the command line, which is run in that folder.
        may_run: Whether the command may also ignore the item, and end as if it were not there.
        environment: Further variables; "{folder}" stands for the folder.
    """

    kind: str
    name: str
    files: Mapping[str, Content]
    arguments: tuple[str, ...] = AUDIT
    may_run: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)

    def put(self, folder: Path) -> None:
        """Make the files."""
        for name, content in self.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if callable(content):
                content(path)
            else:
                path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))


@dataclass(frozen=True)
class Scene:
    """What the cases of one campaign share.

    Attributes:
        marker: The file that every hostile program tries to write.
        shared: Folder of harmless records, a model that fits them, and hostile programs.
    """

    marker: Path
    shared: Path

    @property
    def shell(self) -> str:
        """A command that writes the marker."""
        return f"touch {self.marker}"

    @property
    def python(self) -> str:
        """Python code that writes the marker."""
        return f"open({str(self.marker)!r}, 'w').close()"


def parameters(test: Any) -> list[tuple[Any, ...]]:
    """Return the attacks that a parametrised test goes through, to send them through the command line too."""
    (mark,) = [mark for mark in test.pytestmark if mark.name == "parametrize"]
    return [one if isinstance(one, tuple) else (one,) for one in mark.args[1]]


def sparse(size: int, head: bytes = b"") -> Callable[[Path], None]:
    """A file of so many bytes that takes hardly any room on the disk."""

    def make(path: Path) -> None:
        with path.open("wb") as file:
            file.write(head)
            file.truncate(size)

    return make


def link(target: str) -> Callable[[Path], None]:
    """A symbolic link."""
    return lambda path: path.symlink_to(target)


NO_FILES: Mapping[str, Content] = {
    "a FIFO": os.mkfifo,
    "a folder": Path.mkdir,
    "an endless device": link("/dev/zero"),
    "a link to itself": lambda path: path.symlink_to(path.name),
    "a link to nothing": link("nowhere"),
    "a link to the memory of the process": link("/proc/self/mem"),
}


def bomb(text: bytes, times: int) -> bytes:
    """Return text, repeated so many times, as gzip; made piece by piece."""
    pack = zlib.compressobj(9, wbits=31)
    return b"".join([*(pack.compress(text) for _ in range(times)), pack.flush()])


def numbered(kind: str, found: Iterable[tuple[str, Content]], around: Mapping[str, Content], name: str) -> list[Case]:
    """Return cases that differ in the content of one file.

    Args:
        kind: Of all of them.
        found: What is wrong, and the content.
        around: The other files.
        name: Of the file.
    """
    return [Case(kind, what, {**around, name: content}) for what, content in found]
