"""Old names of the configuration: one table, and where each old name still works."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from tract.common.errors import ConfigError
from tract.config.renames import MOVED_CLASSES, RENAMED_KEYS, RENAMED_VALUES, upgraded, upgraded_config, upgraded_overrides
from tract.pipeline import old_names
from tract.pipeline.entry import launch
from tract.pipeline.sweeps import job_variant

VALUES = {
    "batch.global_batch_size": 6, "batch.max_tokens_per_micro_batch": 512, "data.truncation": "raise", "train.keep_weights": "last",
    "train.validate_base_model": False, "stage2.init_from": "stage1", "stage2.batch.global_batch_size": 6,
    "stage2.batch.max_tokens_per_micro_batch": 512, "stage2.train.keep_weights": "last", "stage2.train.validate_base_model": False,
    "evaluation.failed_score": "lowest", "logger.wandb.timeout_s": 7, "run.subprocess_stages": False,
}  # fmt: skip
# (old key, new key, old value, new value) of every entry of the tables.
RENAMES = [
    *((old, new, VALUES[new], VALUES[new]) for old, new in RENAMED_KEYS.items()),
    *((key, key, *values) for key, values in RENAMED_VALUES.items()),
    *(("data.source._target_", "data.source._target_", old, new) for old, new in MOVED_CLASSES.items() if ".data." in old),
    *(("+trainer.strategy._target_", "trainer.strategy._target_", old, new) for old, new in MOVED_CLASSES.items() if ".data." not in old),
]


@pytest.fixture
def warnings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is warned of; Hydra takes the handlers of other ways to see it."""
    lines: list[str] = []
    monkeypatch.setattr(old_names.log, "warning", lambda _, line: lines.append(line))
    return lines


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[DictConfig]]:
    """The configurations that the task of an entry script gets, for arguments."""

    def run(*arguments: str) -> list[DictConfig]:
        found: list[DictConfig] = []
        monkeypatch.setattr(sys, "argv", ["train.py", "logger=wandb", *arguments])
        monkeypatch.delenv(job_variant.FIXED_KEYS, raising=False)
        GlobalHydra.instance().clear()
        launch(found.append, "train")
        return found

    return run


def nested(key: str, value: Any) -> dict[str, Any]:
    for name in reversed(key.split(".")):
        value = {name: value}
    return value


def text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


@pytest.mark.parametrize(("old", "new", "old_value", "new_value"), RENAMES)
def test_an_old_name_works_as_override_in_a_file_and_in_an_older_run(
    old: str, new: str, old_value: Any, new_value: Any, launched: Callable[..., list[DictConfig]], tmp_path: Path,
    warnings: list[str],
) -> None:  # fmt: skip
    key = old.lstrip("+")
    plus = "+" if key.startswith("stage2.") and key.count(".") == 2 else ""
    (cfg,) = launched(f"{plus}{old}={text(old_value)}")
    assert OmegaConf.select(cfg, new) == new_value
    assert OmegaConf.select(cfg, key) == (new_value if key == new else None)
    assert [line.endswith("; the old name works in this release only") for line in warnings] == [True]
    assert (new if key != new else text(new_value)) in warnings[0]

    warnings.clear()
    (tmp_path / "experiment").mkdir()
    OmegaConf.save(nested(key, old_value), tmp_path / "experiment" / "mine.yaml")
    file = tmp_path / "experiment" / "mine.yaml"
    file.write_text(f"# @package _global_\n{file.read_text()}")
    (cfg,) = launched("experiment=mine", "--config-dir", str(tmp_path))
    assert OmegaConf.select(cfg, new) == new_value
    assert OmegaConf.is_struct(cfg)
    assert [line.endswith("; the old name works in this release only") for line in warnings] == [True]

    warnings.clear()
    assert OmegaConf.select(OmegaConf.create(upgraded_config(nested(key, old_value))), new) == new_value
    assert warnings == []


def test_a_renamed_key_stays_in_its_section() -> None:
    assert {old.rpartition(".")[0] == new.rpartition(".")[0] for old, new in RENAMED_KEYS.items()} == {True}


def test_signs_sweeps_flags_and_interpolations_of_a_command_line() -> None:
    words = [
        "+train.export=last",
        "++data.overlong=drop",
        "~train.validate_seed_model",
        "batch.items_per_step=4,8",
        "compare_to=seed,stage1",
    ]
    words += ["--cfg", "job", "train.max_steps=${batch.items_per_step}", "judge=runs/seed", "seed=1"]
    current, lines = upgraded_overrides(words)
    assert current == [
        "+train.keep_weights=last", "++data.truncation=drop", "~train.validate_base_model", "batch.global_batch_size=4,8",
        "compare_to=base,stage1", "--cfg", "job", "train.max_steps=${batch.global_batch_size}", "judge=runs/seed", "seed=1",
    ]  # fmt: skip
    assert len(lines) == 6


def test_both_names_on_a_command_line_are_refused() -> None:
    for words in (["batch.items_per_step=4", "batch.global_batch_size=4"], ["+batch.global_batch_size=4", "batch.items_per_step=4"]):
        with pytest.raises(ConfigError, match=r"^batch.items_per_step: is given together with batch.global_batch_size, its new"):
            upgraded_overrides(words)


def test_both_names_in_a_file_are_refused(
    launched: Callable[..., list[DictConfig]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text("# @package _global_\nbatch: {items_per_step: 4, global_batch_size: 8}\n")
    with pytest.raises(SystemExit):
        launched("experiment=mine", "--config-dir", str(tmp_path))
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("error: batch.items_per_step: ")
    assert line.endswith("mine.yaml gives it together with batch.global_batch_size, its new name; leave batch.items_per_step out")


def test_the_command_line_wins_over_an_old_name_in_a_file(launched: Callable[..., list[DictConfig]], tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine.yaml").write_text("defaults: [rubric_check]\noverlong: drop\nmax_length: 77\n")
    mine = ["data=mine", "--config-dir", str(tmp_path)]
    assert launched(*mine)[0].data.truncation == "drop"
    for name in ("overlong", "truncation"):
        (cfg,) = launched(f"data.{name}=raise", *mine)
        assert (cfg.data.truncation, cfg.data.max_length) == ("raise", 77)


def test_an_interpolation_to_an_old_name_in_a_file(launched: Callable[..., list[DictConfig]], tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(
        "# @package _global_\ntrain: {max_steps: '${batch.items_per_step}'}\nbatch: {items_per_step: 3}\n"
    )
    (cfg,) = launched("experiment=mine", "--config-dir", str(tmp_path))
    assert (cfg.train.max_steps, cfg.batch.global_batch_size) == (3, 3)


def test_what_a_file_of_a_sweep_varies(launched: Callable[..., list[DictConfig]], tmp_path: Path) -> None:
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "mine.yaml").write_text(
        "# @package _global_\nhydra:\n  mode: MULTIRUN\n  sweeper:\n    params:\n      batch.items_per_step: 4,8\n"
    )
    found = launched("sweep=mine", f"paths.runs={tmp_path}/runs", "--config-dir", str(tmp_path))
    assert [cfg.batch.global_batch_size for cfg in found] == [4, 8]


def test_current_names_are_left_as_they_are() -> None:
    config = {"seed": 0, "judge": None, "batch": {"global_batch_size": 4}, "logger": {"wandb": None}, "data": {"path": "seed"}}
    assert upgraded(config) == (config, [])


@pytest.mark.parametrize("target", MOVED_CLASSES.values())
def test_moved_classes_are_where_the_table_says(target: str) -> None:
    module, _, name = target.rpartition(".")
    assert isinstance(getattr(importlib.import_module(module), name), type)
