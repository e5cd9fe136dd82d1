"""A ``~`` means the home folder wherever a user writes it, and what is blank is refused where it is given."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig

from tract.artifacts.chat_models import template_of
from tract.artifacts.standalone_judges import cache_folder, hosted_judge
from tract.common.errors import ConfigError
from tract.common.user_paths import expanded, given_path
from tract.judge.judge import Judge
from tract.pipeline import entry
from tract.pipeline.validation import validate


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path / "home (1)"))
    return tmp_path / "home (1)"


def test_the_home_folder_is_read_at_the_beginning_alone(home: Path) -> None:
    assert expanded("~", "judge") == str(home)
    assert expanded("~/a b/~", "judge") == f"{home}/a b/~"
    for text in ("./~", "a/~", "a~", "/~", "org/name"):
        assert expanded(text, "judge") == text
    assert given_path("~/x") == home / "x"


def test_of_another_user_and_without_home(monkeypatch: pytest.MonkeyPatch) -> None:
    import pwd

    me = pwd.getpwuid(os.getuid())
    assert expanded(f"~{me.pw_name}/x", "judge") == f"{me.pw_dir.rstrip('/')}/x"
    with pytest.raises(ConfigError, match=r"^judge: the home folder in '~nobody9/x' is not known, there is no user 'nobody9'; correct it"):
        expanded("~nobody9/x", "judge")
    for setting in ("", None):
        monkeypatch.setenv("HOME", "") if setting is not None else monkeypatch.delenv("HOME")
        assert expanded("~/x", "judge") == os.path.join(me.pw_dir, "x")

    def absent(user: int) -> Any:
        raise KeyError(user)

    monkeypatch.setattr(pwd, "getpwuid", absent)  # a container's user whom no one has named
    with pytest.raises(ConfigError, match=r"^paths.runs: the home folder in '~/x' is not known, HOME is not set; set it, or write"):
        expanded("~/x", "paths.runs")
    monkeypatch.delenv("TRACT_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    with pytest.raises(ConfigError, match=r"^cache_dir: the home folder in '~/.cache' is not known"):
        cache_folder(None)


@pytest.mark.parametrize("text", ["", " ", "\t"])
def test_what_is_blank_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^judge: .* is empty, as a shell variable is that is not set; give a path"):
        expanded(text, "judge")
    with pytest.raises(argparse.ArgumentTypeError, match=r"^'.*' is empty"):
        given_path(text)
    with pytest.raises(ConfigError, match=r"^judge: .* names no judge; give an exported judge"):
        Judge.from_pretrained(text)
    with pytest.raises(ConfigError, match=r"^judge: .* names no judge"):
        hosted_judge(text)


@pytest.mark.parametrize("judge", [None, 3, ["a"]])
def test_what_is_no_text_is_no_judge(judge: Any) -> None:
    with pytest.raises(ConfigError, match=r"^judge: .* names no judge"):
        Judge.from_pretrained(judge)


def test_python_takes_it_in_every_path(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=rf"there is no folder '{home}/nowhere'".replace("(", r"\(").replace(")", r"\)")):
        Judge.from_pretrained("~/nowhere")
    with pytest.raises(ConfigError, match=r"there is no folder './~/nowhere'"):
        Judge.from_pretrained("./~/nowhere")
    home.mkdir()
    (home / "prompt.yaml").write_text("cue: 'Mark: '\n")
    assert template_of("~/prompt.yaml").cue == "Mark: "
    assert template_of(Path("~/prompt.yaml")).cue == "Mark: "
    assert cache_folder("~/c") == home / "c"
    monkeypatch.setenv("TRACT_CACHE", "~/d")
    assert cache_folder(None) == home / "d"


PATHS = ("judge", "compare_to", "paths.runs", "paths.cache", "model.name_or_path", "model.tokenizer_name_or_path", "model.chat_template",
         "model.unpacked", "data.path", "evaluation.cots")  # fmt: skip


@pytest.mark.parametrize("key", PATHS)
def test_every_path_of_the_configuration_takes_it_and_is_not_blank(key: str, compose_config: Callable[..., DictConfig], home: Path) -> None:
    free = ["evaluation.predictors=[rail]"]  # which annotated CoTs can be read by
    config = compose_config("model=tiny", *free, f"{key}='~/it'")
    validate(config)
    section = config
    for name in key.split("."):
        section = section[name]
    assert section == f"{home}/it"
    with pytest.raises(ConfigError, match=rf"(^|; ){key}: '' is empty, as a shell variable is that is not set; give "):
        validate(compose_config("model=tiny", *free, f"{key}=''"))


def test_a_benchmark_and_the_data_behind_an_interpolation_take_it_too(compose_config: Callable[..., DictConfig], home: Path) -> None:
    config = compose_config("model=tiny", "data=feedback_jsonl", "data.path='~/rows.jsonl'", "evaluation.benchmarks=[test,'~/b.json']")
    cfg = validate(config)
    assert cfg.data.source["path"] == f"{home}/rows.jsonl"
    assert cfg.evaluation.benchmarks == ["test", f"{home}/b.json"]
    with pytest.raises(ConfigError, match="evaluation.benchmarks: ' ' is empty"):
        validate(compose_config("model=tiny", "evaluation.benchmarks=[test,' ']"))


@pytest.mark.parametrize(
    ("word", "values"),
    [
        ("judge=~/a b", ["{}/a b"]),
        ("+judge=~", ["{}"]),
        ("judge=./~", ["./~"]),
        ("judge=a/b~1", ["a/b~1"]),
        ("judge=~/a,~/b", ["{}/a", "{}/b"]),
        ("evaluation.benchmarks=[~/a.json, test,./~b]", ["{}/a.json", "test", "./~b"]),
        ("paths.runs=~/${run.name}/x", ["{}/${{run.name}}/x"]),
        ("prompt.cue='~/a'", ["~/a"]),
        # Folders of a sweep's jobs.
        ("judge=runs/a/objective.lambda=0.1/seed0", ["runs/a/objective.lambda=0.1/seed0"]),
        ("judge=runs/ce_both+a=1/seed0,runs/b=c", ["runs/ce_both+a=1/seed0", "runs/b=c"]),
        ("judge='runs/a=1'", ["runs/a=1"]),
        ("evaluation.benchmarks=[test,runs/a=1/b.json]", ["test", "runs/a=1/b.json"]),
        ("prompt.cue=~Score: ", ["~Score: "]),
        ("~judge", None),
        ("seed=1", [1]),
    ],
)
def test_hydra_which_knows_no_tilde_reads_overrides_with_one(word: str, values: list[Any] | None, home: Path) -> None:
    changed = entry._with_home(word)
    if values is None:
        assert changed == word
        return
    parsed = OverridesParser.create().parse_override(changed)
    value = parsed.value()
    found = list(parsed.sweep_iterator()) if parsed.is_sweep_override() else value if isinstance(value, list) else [value]
    assert [getattr(item, "text", item) for item in found] == [item.format(home) if isinstance(item, str) else item for item in values]


def test_folders_that_hydra_reads_itself(monkeypatch: pytest.MonkeyPatch, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("TRACT_RUNS", "~/runs")
    monkeypatch.setattr(sys, "argv", ["train.py", "--config-dir=~/conf", "--config-dir", "x", "seed=1"])
    entry._expand_home()
    assert (os.environ["TRACT_RUNS"], sys.argv[1:]) == (f"{home}/runs", [f"--config-dir={home}/conf", "--config-dir", "x", "seed=1"])
    monkeypatch.setattr(sys, "argv", ["train.py", "paths.runs=~nobody9/x"])
    with pytest.raises(SystemExit) as ended:
        entry.launch(lambda cfg: pytest.fail("it ran"), "train")
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("error: paths.runs: the home folder in '~nobody9/x' is not known, there is no user")


def test_a_multirun_refuses_what_only_a_file_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "home_runs.yaml").write_text("# @package _global_\npaths:\n  runs: ~/runs\n")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "experiment").symlink_to("mine")
    monkeypatch.setattr(sys, "argv", ["train.py", "--config-dir", str(tmp_path), "-m", "experiment=home_runs", "seed=0,1"])
    with pytest.raises(SystemExit):
        entry.launch(lambda cfg: pytest.fail("it ran"), "train")
    assert "error: paths.runs: ~ in '~/runs' of a file is not read before a multirun; write the folder out" in capsys.readouterr().err
    assert not (tmp_path / "~").exists()
