"""What went wrong, in one short sentence that anybody may see: no path of this machine, no terminal escapes."""

import errno

from auditor.files.paths import file_name, without_paths
from reports.untrusted import printable

LONGEST = 500

# Of an OSError: what the user can mend by another path or other rights.
_MENDABLE = (
    errno.ENOENT, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG,
    errno.ELOOP, errno.EROFS, errno.ENOTEMPTY, errno.EINVAL,
)  # fmt: skip
_FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))
_NO_MEMORY = ("can't allocate memory", "cannot allocate memory", "not enough memory", "out of memory", "bad_alloc")


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether memory ran out, on this machine or on its accelerator; torch says so in a RuntimeError."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    said = str(error)[:2000].lower()
    return isinstance(error, RuntimeError) and any(words in said for words in _NO_MEMORY)


def is_disk_full(error: BaseException) -> bool:
    """Return whether a disk or a quota is full; libraries that write in their own ways say so in words alone."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in _FULL
    said = str(error)[:2000].lower()
    return "no space left on device" in said or (isinstance(error, OSError) and " requested and " in said)


def is_mendable(error: OSError) -> bool:
    """Return whether another path or other rights would help."""
    return error.errno in _MENDABLE


def reason(error: BaseException) -> str:
    """Return why something failed, fit for a record.

    Args:
        error: What was raised.

    Returns:
        One line of at most 500 characters.

    Examples:
        >>> reason(FileNotFoundError(2, "No such file or directory", "/home/ada/x.csv"))
        'FileNotFoundError: No such file or directory: x.csv'
    """
    kind = type(error).__name__
    if is_out_of_memory(error):
        return f"{kind}: there is not enough memory for it; give it fewer records, shadow models or a smaller batch"
    if is_disk_full(error):
        return f"{kind}: the disk is full"
    if isinstance(error, OSError) and error.strerror:
        said = error.strerror + (f": {file_name(str(error.filename))}" if error.filename else "")
    else:
        said = str(error)
    return printable(without_paths(f"{kind}: {said}" if said else kind), longest=LONGEST)
