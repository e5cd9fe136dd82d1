"""What an exported judge says of the responses that it was trained on."""

from __future__ import annotations

import shutil
from pathlib import Path

from exported_runs import Runs

from tract.apps.export.exporting import Exported
from tract.artifacts.trained_on import TRAINED_ON_FILE, read_trained_on, response_hash, training_hashes, write_trained_on
from tract.data.store import ExampleStore
from tract.pipeline.stages.examples import examples_of, splits_of
from tract.text.score_grid import ScoreGrid


def test_an_export_holds_the_hashes_of_training_and_validation(runs: Runs, merged: Exported) -> None:
    cfg = runs.cfg
    store = examples_of(cfg, ScoreGrid(tuple(cfg.grid.labels)))
    splits = splits_of(cfg, store)
    hashes = {name: {_hash(store, row) for row in rows} for name, rows in splits.items()}
    found = read_trained_on(merged.folder)
    assert found == hashes["train"] | hashes["val"]
    assert not found & hashes["test"]
    lines = (merged.folder / TRAINED_ON_FILE).read_text().splitlines()
    assert lines == sorted(lines)
    assert all(len(line) == 16 for line in lines)


def _hash(store: ExampleStore, row: int) -> str:
    example = store.example(row)
    return response_hash(example.instruction, example.response)


def test_without_the_examples_nothing_is_known(runs: Runs, tmp_path: Path) -> None:
    stage = tmp_path / "stage2-copy"
    shutil.copytree(runs.products["stage2"].path, stage)
    text = (stage / "config.yaml").read_text()
    (stage / "config.yaml").write_text(text.replace(str(runs.cfg.paths.cache), str(tmp_path / "nowhere")))
    assert training_hashes(stage, None) is None
    assert training_hashes(stage, Path(runs.cfg.paths.cache)) is not None
    assert training_hashes(tmp_path, None) is None
    assert read_trained_on(tmp_path) is None


def test_hashes_are_read_as_they_were_written(tmp_path: Path) -> None:
    write_trained_on(tmp_path, {"b" * 16, "a" * 16})
    assert read_trained_on(tmp_path) == {"a" * 16, "b" * 16}
    assert response_hash(" a ", "b") == response_hash("a", "b\n") != response_hash("ab", "")
