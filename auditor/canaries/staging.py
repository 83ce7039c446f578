"""Where a planting is made before it is shown: hidden folders beside the goals, locked for as long as it works.

A planting has two goals, the sealed file and the folder of planted data. Both are finished and on disk before either
gets its name; then the sealed file gets its own, and the folder follows. So these are all the states that a killed
process can leave:

- neither goal is there: the hidden folders are waste, and the next call removes them;
- the sealed file is there, and its data are still hidden: nobody can have trained on them, so the next call undoes it;
- both are there: the planting is whole, and hidden folders beside it are waste.

Planted data never stand without their sealed file. A lock is the kernel's, which drops it when its process dies.
"""

import errno
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from auditor.canaries.sealed_coins import SealedCoins
from defenses.errors import DataError, PlanError
from reports.parsing import read_json

PUBLIC = "planted.json"
"""What is said in public beside the planted data."""

LOCK = "lock"
SEALED_AT = "sealed-at"


@dataclass(frozen=True)
class Staging:
    """A hidden, private folder beside a goal.

    Attributes:
        goal: What a file or folder made here will be called in the end; absolute.
    """

    goal: Path

    @property
    def folder(self) -> Path:
        """The hidden folder (mode 0700)."""
        return self.goal.with_name(f".{self.goal.name}.planting")

    @property
    def content(self) -> Path:
        """What is made, before it gets the name of the goal."""
        return self.folder / "content"

    def empty(self) -> None:
        """Remove whatever a killed process left here."""
        for entry in self.folder.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            elif entry.name != LOCK:
                entry.unlink()


@contextmanager
def staged(goal: Path) -> Iterator[Staging]:
    """Make a hidden folder beside a goal, or take over that of a process that is gone; nobody else can at a time.

    Args:
        goal: An absolute path; its parents are made if they are not there.

    Yields:
        The folder, with whatever was left in it. It stays there until it is emptied and then left.

    Raises:
        PlanError: If another process is planting there.
        DataError: If the folder belongs to somebody else, or the file system has no locks.
    """
    staging = Staging(goal)
    made = [parent for parent in goal.parents if not parent.exists()]
    goal.parent.mkdir(parents=True, exist_ok=True)
    for parent in made:
        _sync(parent.parent)
    lock = _lock(staging)
    try:
        yield staging
    finally:
        # The lock goes last: as long as its file is there, nobody else works in this folder.
        if [entry.name for entry in staging.folder.iterdir()] == [LOCK]:
            (staging.folder / LOCK).unlink()
            for folder in (staging.folder, *made):  # parents as well, unless they have come into use
                with suppress(OSError):
                    folder.rmdir()
        os.close(lock)


def _lock(staging: Staging) -> int:
    """Return a descriptor that holds the lock of a hidden folder."""
    import fcntl  # not there on Windows, where audits run all the same

    while True:
        with suppress(FileExistsError):
            staging.folder.mkdir(mode=0o700)
        try:
            _refuse_foreign(staging.folder)
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW  # not the folder itself: NFS locks only what can be written
            descriptor = os.open(staging.folder / LOCK, flags, 0o600)
        except FileNotFoundError:
            continue  # another process has just removed the folder
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(descriptor), os.stat(staging.folder / LOCK)):
                return descriptor
        except FileNotFoundError:
            pass  # locked a file that another process has removed since: once more
        except OSError as error:
            os.close(descriptor)
            if error.errno in (errno.EAGAIN, errno.EACCES):
                raise PlanError(
                    f"another auditor plant is writing {staging.goal} right now; wait until it is done, or give "
                    "another name"
                ) from None
            raise DataError(
                f"{staging.folder} cannot be locked ({error.strerror}); give a path on a file system that has locks"
            ) from error
        os.close(descriptor)


def _refuse_foreign(folder: Path) -> None:
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise DataError(
            f"{folder} was not made by you, and coins may not pass through it; remove it, or plant elsewhere"
        )
    folder.chmod(0o700)


def undo_unfinished(data: Staging, sealed: Staging) -> None:
    """Remove a sealed file that a killed process has named before it could name the planted data.

    Raises:
        PlanError: If that is another file than the goal of `sealed`: files that were not named are not removed.
    """
    there = _sealed_without_data(data)
    if there is None:
        return
    if there != sealed.goal:
        raise PlanError(
            f"an earlier planting into {data.goal} was stopped after it had written {there} and before its data came "
            f"out, so nothing was trained on those coins; delete {there} and plant again, or give --secret {there}"
        )
    there.unlink()
    _sync(there.parent)


def _sealed_without_data(data: Staging) -> Path | None:
    """Return the sealed file whose data are still hidden here, or None."""
    try:
        path = Path((data.folder / SEALED_AT).read_text())
        hidden = read_json(data.content / PUBLIC, error=DataError)["commitment"]
        return path if SealedCoins.read(path).commitment == hidden else None
    except (OSError, ValueError, KeyError, TypeError, DataError):
        return None  # it was stopped earlier than that, or the file is that of another planting


def refuse_taken(out: Path, secret: Path) -> None:
    """Refuse goals that are there, and say so if they are a whole planting.

    Raises:
        DataError: If there is a sealed file.
        PlanError: If the folder is not empty.
    """
    filled = out.exists() and (not out.is_dir() or any(out.iterdir()))
    if os.path.lexists(secret):
        if filled and _belong_together(out, secret):
            raise DataError(
                f"{out} and {secret} are there already and belong together: that planting is whole, so train on it, or "
                "give other names for another one"
            )
        raise DataError(
            f"{secret} is there already, and coins are never overwritten: a model may have been trained on them; give "
            "another name"
        )
    if filled:
        raise PlanError(f"{out} is not empty; give a folder of its own for the planted data")


def _belong_together(out: Path, secret: Path) -> bool:
    try:
        said = read_json(out / PUBLIC, error=DataError)["commitment"]
        return bool(SealedCoins.read(secret).commitment == said)
    except (OSError, ValueError, KeyError, TypeError, DataError):
        return False


def publish(data: Staging, sealed: Staging) -> None:
    """Give what was made its names, the sealed file first.

    Raises:
        DataError: If a name cannot be given, because something has come to stand there, say; neither is then.
    """
    (data.folder / SEALED_AT).write_text(str(sealed.goal))
    os.sync()  # all in one go: to wait for each of many small files in turn takes minutes
    for staging in (data, sealed):
        _sync_tree(staging.folder)
        _sync(staging.goal.parent)
    goal, remedy = sealed.goal, "a path on a file system that has hard links and file modes"
    try:
        os.link(sealed.content, goal)  # unlike a rename, it never replaces what is there
        _sync(goal.parent)
        goal, remedy = data.goal, "a new folder for the planted data"
        os.rename(data.content, goal)  # replaces an empty folder, and nothing else
    except BaseException as error:
        if data.content.exists() and sealed.goal.exists() and sealed.goal.samefile(sealed.content):
            sealed.goal.unlink()
        if isinstance(error, OSError):
            raise DataError(f"{goal} cannot be made ({error.strerror}); give {remedy}") from error
        raise
    _sync(data.goal.parent)


def _sync_tree(folder: Path) -> None:
    """Close a folder to everybody else, whatever the umask, and wait until it is on disk: files first, then folders."""
    for place, _, files in os.walk(folder, topdown=False):
        for name in files:
            os.chmod(os.path.join(place, name), 0o600)
            _sync(os.path.join(place, name))
        os.chmod(place, 0o700)
        _sync(place)


def _sync(path: str | Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system that has nothing to sync here
            raise
    finally:
        os.close(descriptor)
