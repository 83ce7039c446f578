import os
import tempfile
from pathlib import Path

# The key that authenticates kept items, and the list of attempts: never those of whoever runs the tests.
os.environ["XDG_STATE_HOME"] = tempfile.mkdtemp(prefix="auditor-state-")

# One thread each: tests run in as many processes as there are cores, and small models gain nothing from more.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder with real data sets; tests that need it are skipped without it, or fail where it was promised."""
    named = os.environ.get("AUDITOR_DATA")
    refuse = pytest.fail if os.environ.get("AUDITOR_REQUIRE_DATA") else pytest.skip
    if not named:
        refuse("AUDITOR_DATA is not set: name the folder with the real data sets to run this test")
        raise AssertionError
    folder = Path(named)
    if not folder.is_dir():
        refuse(f"AUDITOR_DATA is {named}, which is not a folder")
    return folder
