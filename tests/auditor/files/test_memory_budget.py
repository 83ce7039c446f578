"""What a budget says of sizes that no machine has."""

import pytest

from auditor.files.memory_budget import check_budget
from defenses.errors import DataError


@pytest.mark.parametrize(
    ("needed", "shown"),
    [
        (1, "0.0"),
        (3 * 2**29, "1.5"),
        (2**40 + 2**29, "1024.5"),
        (10**9 * 2**30, "more than 1,000,000,000"),
        (10**400, "more than 1,000,000,000"),
        (10**4000, "more than 1,000,000,000"),
    ],
)
def test_a_size_of_any_length_is_refused_in_words(needed: int, shown: str) -> None:
    with pytest.raises(DataError, match=f"a file would need {shown} GiB of memory, and the budget is 0.0 GiB"):
        check_budget(needed, 0, "a file", error=DataError)
    check_budget(needed, needed, "a file", error=DataError)
