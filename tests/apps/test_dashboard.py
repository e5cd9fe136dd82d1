"""The workspace's specification: the panels that matter, on metrics that are really logged."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from commands import main_of

from tract.apps import dashboard

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def sections() -> dict[str, list[dict[str, Any]]]:
    """Title -> panels."""
    made = dashboard.spec(dashboard.workspace("team", "judges", "view", "vicuna"))
    assert (made["entity"], made["project"], made["displayName"]) == ("team", "judges", "view")
    return {part["name"]: part["panels"] for part in made["spec"]["section"]["panelBankConfig"]["sections"]}


def test_the_panels_that_matter(sections: dict[str, list[dict[str, Any]]]) -> None:
    configs = [panel["config"] for panels in sections.values() for panel in panels]
    shown = {metric for config in configs for metric in config.get("metrics", [])}
    assert {"train/loss", "train/ce_loss", "train/score_loss", "train/score_mass", "val/pearson_r", "train/tokens_per_s"} <= shown
    assert {f"summary_metrics.eval/vicuna/{metric}" for metric in ("pearson_r", "rmse")} <= shown


def test_bars_are_means_over_seeds_with_a_spread(sections: dict[str, list[dict[str, Any]]]) -> None:
    bars = [panel["config"] for panel in sections[next(iter(sections))] if panel["viewType"] == "Bar Chart"]
    assert len(bars) == 3
    assert {(bar["groupBy"], bar["groupAgg"], bar["groupArea"]) for bar in bars} == {("variant.value", "mean", "stderr")}


def test_validation_is_told_by_stage_along_trained_tokens(sections: dict[str, list[dict[str, Any]]]) -> None:
    lines = [panel["config"] for panel in sections["Validation by stage"]]
    assert {(line["xAxis"], line["groupBy"]) for line in lines} == {("progress/trained_tokens", "stage.value")}


def test_the_specification_is_written_without_a_network(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tract", "dashboard", "--spec", str(tmp_path / "spec.json")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads((tmp_path / "spec.json").read_text())["project"] == "tract"


def test_without_a_key_one_line_says_what_to_do(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    with pytest.raises(SystemExit) as ended:
        main_of(dashboard)([])
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("error: dashboard: there is no key for W&B, or WANDB_MODE is not online; run `wandb login`")


def test_without_the_package_one_line_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb_workspaces.workspaces", None)
    with pytest.raises(ValueError, match=r"needs the package wandb-workspaces; run `pip install -c constraints.txt -e '\.\[dashboard\]'`"):
        dashboard.workspace("e", "p", "n", "test")
