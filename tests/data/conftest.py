import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def fixtures():
    return ROOT / "tests" / "fixtures"


@pytest.fixture(scope="session")
def shared_data():
    """A function from the name of a real data file to its path; skips where the file is absent."""
    folder = Path(os.environ.get("TRACT_SHARED_DATA") or ROOT.parent / "shared" / "data")

    def find(name):
        if not (folder / name).is_file():
            pytest.skip(f"{folder / name} is missing (set TRACT_SHARED_DATA to the folder of the real judge data)")
        return folder / name

    return find
