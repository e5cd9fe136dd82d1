"""Commands that are printed to be run next: the shell and Hydra read back what they are to hold."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import example, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from tract.common import command_line
from tract.pipeline.commands import kept_overrides, next_command, override

ROOT = Path(__file__).resolve().parents[2]
# What the grammars of shells, Hydra and OmegaConf know, beside any text.
AWKWARD = st.text("ab1/.-_ ()[]{}=,:;#\\'\"$~*?!%&|<>@+^`\t\n\u00e9\u6f22", max_size=12)


@given(AWKWARD | st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=12))
@example("")
@example("null")
@example("~")
@example("1e5")
@example("true")
@example("runs (old), v=2/it's/stage1-0123")
@example("a\\")
@example("a\\'b\\\\'")
@example("${oc.env:HOME}\\${x}\\\\${y}")
@example("${a}\\")
@settings(max_examples=300, deadline=None)
def test_hydra_reads_back_from_the_shell_what_a_value_holds(text: str) -> None:
    if text == "???":  # OmegaConf's sign of an absent value, which cannot be written otherwise
        return
    (word,) = shlex.split(shlex.join([override("judge", text)]))
    parsed = OverridesParser.create().parse_override(word)
    assert not parsed.is_sweep_override()
    assert OmegaConf.create({"judge": parsed.value()}).judge == text
    assert isinstance(parsed.value(), str)


def test_a_plain_value_is_not_quoted() -> None:
    assert override("judge", "runs/tract_quickstart/seed0/stage2-0123abcdef") == "judge=runs/tract_quickstart/seed0/stage2-0123abcdef"
    assert override("judge", "/srv/it's (1)/a") == "judge='/srv/it\\'s (1)/a'"


def test_what_was_given_is_kept_less_what_belongs_to_one_run() -> None:
    known = ["experiment=tract_quickstart", "data.train='my data.jsonl'", "seed=3", "+trainer.x=1", "stages=[stage1]", "sweep=ablations"]
    kept = ["experiment=tract_quickstart", "data.train='my data.jsonl'", "seed=3", "+trainer.x=1"]
    assert kept_overrides(known, "objective.lambda=0.1") == [*kept, "objective.lambda=0.1"]
    assert kept_overrides(known, "seed=4,5") == [*kept[:2], kept[3], "seed=4,5"]
    assert kept_overrides([*known, "judge=old"], "judge=new", "trainer.x=2") == [*kept[:3], "judge=new", "trainer.x=2"]


def hydra_of(monkeypatch: pytest.MonkeyPatch, *overrides: str, name: str = "train", folder: str | None = None) -> None:
    """Lets this process look like one that Hydra started."""
    sources = [SimpleNamespace(provider="main", path="file:///conf")]
    if folder is not None:
        sources.append(SimpleNamespace(provider="command-line", path=f"file://{folder}"))
    content = SimpleNamespace(
        overrides=SimpleNamespace(task=list(overrides)),
        runtime=SimpleNamespace(config_sources=sources),
        job=SimpleNamespace(config_name=name),
    )
    monkeypatch.setattr(HydraConfig, "initialized", lambda: True)
    monkeypatch.setattr(HydraConfig, "get", lambda: content)


def test_the_command_names_the_script_where_it_lies_and_this_interpreter(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    hydra_of(monkeypatch, "seed=3")
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))
    assert next_command("train.py -m", "seed=4,5") == "python train.py -m seed=4,5"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))  # .venv is not activated
    assert next_command("train.py") == shlex.join([sys.executable, str(ROOT / "train.py"), "seed=3"])


def test_the_user_s_own_folder_of_configurations_stays(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command_line, "interpreter", lambda: "python")
    hydra_of(monkeypatch, name="mine", folder=f"{tmp_path}/my conf #1")
    assert shlex.split(next_command("train.py"))[2:] == ["--config-dir", "my conf #1", "--config-name", "mine"]
    expected = ["--config-dir", "my conf #1", "--config-name", "mine", "judge=a", "stages=[predict,evaluate]"]
    assert shlex.split(next_command("evaluate.py", "judge=a"))[2:] == expected


def printed(log: str) -> list[list[str]]:
    lines = log.split("what to try next:\n")[1].splitlines()[:3]
    return [shlex.split(line) for line in lines]


@pytest.mark.kills  # three runs: two minutes
@pytest.mark.timeout(1200)  # five pipelines, in processes of their own
def test_the_commands_that_a_run_prints_run(tmp_path: Path) -> None:
    """Where the folder of the runs has all that the shell and Hydra read in their own ways."""
    work = tmp_path / "my work"
    work.mkdir()
    small = [
        "model=tiny", "data.source.n_questions=12", "data.source.n_ood_questions=1", "train.max_steps=1", "train.validate_base_model=false",
        "generation=hf", "generation.max_cot_tokens=8", "logger=none", "evaluation.resamples=10", "evaluation.max_items=4", "run.name=odd",
        "pipeline=[stage1,predict,evaluate]", f"paths.cache={tmp_path}/cache", override("paths.runs", "runs (old), v=2/it's [1] #{x}"),
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def run(command: list[str]) -> Any:
        done = subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True, timeout=400, check=False)
        assert done.returncode == 0, done.stderr
        return done

    first = run([sys.executable, str(ROOT / "train.py"), *small])
    made = list((work / "runs (old), v=2" / "it's [1] #{x}" / "stages").glob("stage1-*/manifest.json"))
    assert len(made) == 1
    for command in printed(first.stdout + first.stderr):
        run(command)
