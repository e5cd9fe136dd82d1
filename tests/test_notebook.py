"""The notebook of examples/ runs as it is, offline, and says what its text says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = ROOT / "examples" / "grading.ipynb"


def read() -> Any:
    import nbformat

    return nbformat.read(NOTEBOOK, as_version=4)  # type: ignore[no-untyped-call]


def shown(notebook: Any) -> str:
    return "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", []))


def test_the_notebook_holds_the_output_of_a_run_and_nothing_of_the_machine_that_ran_it() -> None:
    notebook = read()
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert "winner" in shown(notebook)
    assert [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"] == [1, 2, 3, 4, 5]
    assert not any(name in text for name in ("/root", "/home", "/tmp", "/work", "Traceback"))


@pytest.mark.kills
@pytest.mark.slow
def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nbclient import NotebookClient

    monkeypatch.setenv("TRACT_RUNS", str(tmp_path))  # so no run is found
    notebook = read()
    NotebookClient(notebook, timeout=250, kernel_name="python3", resources={"metadata": {"path": str(NOTEBOOK.parent)}}).execute()
    text = shown(notebook)
    assert "error" in text
    assert "response: is missing" in text
    assert "`make quickstart` makes one" in text
