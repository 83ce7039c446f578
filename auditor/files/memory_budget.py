"""The memory that reading a file may take: what a file says of its size is compared with it before it is believed."""

import os
import re
from pathlib import Path

from defenses.errors import PlanError
from reports.untrusted import printable

SHARE = 0.5
"""Part of the machine's memory that one file may fill unless the user says otherwise."""

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_MANY = 10**9  # GiB, beyond which it does not matter how many
_CGROUP = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def default_budget() -> int:
    """Return half of the memory in bytes that this process may use: the machine's, or the container's if it is less."""
    found = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for path in _CGROUP:
        try:
            text = path.read_text().strip()
        except OSError:
            continue
        found += [int(text)] if text.isdigit() else []
    return int(SHARE * min(found))


def parse_budget(text: str) -> int:
    """Return the bytes that a size like ``500M``, ``8G`` or ``8GiB`` names.

    Raises:
        ValueError: If it is not a positive size.

    Examples:
        >>> parse_budget("8G") == 8 * 2**30
        True
    """
    match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)\s*([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE | re.ASCII)
    size = 0 if match is None else int(float(match[1]) * _UNITS[match[2].upper()])
    if size < 1:
        raise ValueError(f"max_memory is {printable(text)!r}; give a size such as 500M or 8G")
    return size


def check_budget(needed: int, budget: int, what: str, *, error: type[Exception]) -> None:
    """Refuse what would need more memory than the budget.

    Args:
        needed: Bytes.
        budget: Bytes.
        what: What would need them.
        error: What to raise.

    Raises:
        error: If it would.
    """
    if needed > budget:
        raise error(
            f"{printable(what)} would need {_gib(needed)} GiB of memory, and the budget is {_gib(budget)} GiB; check "
            "the file, or raise --max-memory"
        )


def _gib(size: int) -> str:
    """Return bytes in GiB to one decimal; by whole numbers, because a file may state more than a float can hold."""
    if size >= _MANY * 2**30:
        return f"more than {_MANY:,}"
    tenths = (10 * size + 2**29) // 2**30
    return f"{tenths // 10}.{tenths % 10}"


def budget_of(text: str | None) -> int:
    """Return what ``--max-memory`` says, or the default where it is not given; raises `PlanError` for no size."""
    try:
        return default_budget() if text is None else parse_budget(text)
    except ValueError as error:
        raise PlanError(str(error)) from None
