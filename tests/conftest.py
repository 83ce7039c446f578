import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder with real data sets; tests that need it are skipped without it."""
    named = os.environ.get("AUDITOR_DATA")
    if not named:
        pytest.skip("AUDITOR_DATA is not set: name the folder with the real data sets to run this test")
    folder = Path(named)
    if not folder.is_dir():
        pytest.skip(f"AUDITOR_DATA is {named}, which is not a folder")
    return folder
