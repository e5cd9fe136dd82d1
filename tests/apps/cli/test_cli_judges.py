"""What commands check of a judge before its weights are loaded: options that fit each other, and a rubric that fits the judge."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from graders import StandIn

from tract.apps.cli.main import Parser
from tract.artifacts.standalone_judges import open_judge_files
from tract.common.errors import ConfigError
from tract.config import vllm
from tract.judge.arguments import VLLM_KEYS, add_judge_arguments, options_of
from tract.judge.judge import Judge

Command = Callable[..., tuple[int, str, str]]
# A tokenizer and a configuration; there are no weights in it, and it was trained on no scores.
TINY = Path(__file__).resolve().parents[3] / "tract" / "assets" / "tiny"


def options(line: str) -> dict[str, Any]:
    parser = Parser("tract grade")
    add_judge_arguments(parser)
    return options_of(parser.parse_args(["--judge", "j", *shlex.split(line)]))


@pytest.mark.parametrize("backend", ["", "--backend hf ", "--backend vllm "])
@pytest.mark.parametrize(
    "option", ["--base-url http://x/v1", "--served-model m", "--api chat", "--api-key-env K", "--timeout-s 3", "--max-retries 0"]
)
def test_options_of_a_server_are_refused_without_one(backend: str, option: str) -> None:
    message = (
        f"{option.split()[0]}: has no effect with --backend {backend.split()[1] if backend else 'hf'}; leave it out, or give --backend"
    )
    with pytest.raises(ConfigError, match=f"^{message} openai$"):
        options(backend + option)
    assert len(options(f"--backend openai {option}")) == 2


def test_which_judge_of_a_run_is_meant_is_handed_on() -> None:
    found = options("--stage stage1 --variant ce_both+objective.lambda=1 --best val/rmse")
    assert found == {"stage": "stage1", "variant": "ce_both+objective.lambda=1", "best": "val/rmse"}
    with pytest.raises(ConfigError, match="^--variant: has no effect with --api chat, whose judge is the server's; leave it out$"):
        options("--backend openai --api chat --variant a")


def test_parameters_of_requests_are_handed_on_as_yaml_reads_them() -> None:
    chat = "--backend openai --api chat"
    given = "--extra-body reasoning_effort=low chat_template_kwargs.enable_thinking=false --extra-body chat_template_kwargs.k=[1,2]"
    assert options(f"{chat} {given}")["extra_body"] == {
        "reasoning_effort": "low", "chat_template_kwargs": {"enable_thinking": False, "k": [1, 2]},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "--backend openai --api vllm --extra-body a=1",
            "--extra-body: has no effect without --api chat; leave it out, or give --api chat",
        ),
        ("--extra-body a=1", "--extra-body: has no effect with --backend hf; leave it out, or give --backend openai"),
        ("--backend openai --api chat --extra-body a=1 a=2", "--extra-body: a is given twice, as 1 and 2; give it once"),
        ("--backend openai --api chat --extra-body a=1 a.b=2", "--extra-body: a.b is inside a, which is given a value of its own"),
        ("--backend openai --api chat --extra-body a.b=1 a=2", "--extra-body: a is given twice, by itself and by what is inside it"),
    ],
)
def test_parameters_of_requests_that_have_no_effect_or_contradict_are_refused(line: str, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        options(line)


@pytest.mark.parametrize(
    ("given", "message"),
    [("a", "'a' is no KEY=VALUE pair, e.g. reasoning_effort=low"), ("a..b=1", "'a..b=1': the key has an empty part"),
     ("a=[1", "'a=[1': the value is none that YAML reads")],
)  # fmt: skip
def test_what_is_no_parameter_is_refused(given: str, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"argument --extra-body: {message}")):
        options(f"--backend openai --api chat --extra-body '{given}'")


def test_options_of_other_backends_are_refused_too() -> None:
    with pytest.raises(ConfigError, match="^--vllm: has no effect with --backend hf; leave it out, or give --backend vllm$"):
        options("--vllm enforce_eager=true")
    with pytest.raises(ConfigError, match="^--device: has no effect with --backend openai; leave it out, or give --backend hf$"):
        options("--backend openai --device cpu")
    assert options("--device cpu") == {"device": "cpu"}


def test_options_of_vllm_are_handed_on_as_yaml_reads_them() -> None:
    given = "--vllm tensor_parallel_size=2 gpu_memory_utilization=.5 --vllm kv_cache_gib=null enforce_eager=true"
    assert options(f"--backend vllm {given}")["vllm"] == {
        "tensor_parallel_size": 2, "gpu_memory_utilization": 0.5, "kv_cache_gib": None, "enforce_eager": True,
    }  # fmt: skip
    assert set(VLLM_KEYS) == set(vllm._DEFAULTS) - {"engine"}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--max-retries -1", "argument --max-retries: '-1' is not a whole number >= 0"),
        ("--timeout-s 0", "argument --timeout-s: '0' is not a number of seconds > 0"),
        ("--timeout-s nan", "argument --timeout-s: 'nan' is not a number of seconds > 0"),
        ("--dtype float64", "argument --dtype: invalid choice: 'float64' .*float32.*bfloat16.*float16"),
        ("--backend openai --api soap", "argument --api: invalid choice: 'soap'"),
        ("--backend vllm --vllm gpu=1", "argument --vllm: unknown key 'gpu'; accepted are tensor_parallel_size, gpu_memory_utilization"),
        ("--backend vllm --vllm enforce_eager", "argument --vllm: 'enforce_eager' is no KEY=VALUE pair"),
        ("--backend vllm --vllm kv_cache_gib=[", "argument --vllm: 'kv_cache_gib=\\[': the value is none that YAML reads"),
        ("--backend vllm --vllm kv_cache_gib=1 --vllm kv_cache_gib=2", "--vllm: kv_cache_gib is given twice, as 1 and 2"),
    ],
)
def test_what_is_no_option_is_one_line(line: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as raised:
        options(line)
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("vllm", "message"),
    [
        ({"tensor_parallel_size": 0}, "vllm.tensor_parallel_size: found 0; a number of GPUs >= 1"),
        ({"tensor_parallel_size": True}, "vllm.tensor_parallel_size: found True"),
        ({"gpu_memory_utilization": 1.5}, "vllm.gpu_memory_utilization: found 1.5; a share"),
        ({"gpu_memory_utilization": float("nan")}, "vllm.gpu_memory_utilization: found nan"),
        ({"kv_cache_gib": "4GB"}, "vllm.kv_cache_gib: found '4GB'; a number of GiB"),
        ({"enforce_eager": "yes"}, "vllm.enforce_eager: found 'yes'; true or false"),
        ({"engine": 1}, "vllm.engine: found 1; a mapping"),
        ({"gpu": 1}, "vllm.gpu: unknown; accepted are tensor_parallel_size"),
    ],
)
def test_values_that_vllm_cannot_take_are_refused_before_it_starts(vllm: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Judge.from_pretrained(TINY, backend="vllm", vllm=vllm)


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The judges whose weights were asked for; they are stand-ins."""
    asked: list[str] = []

    def opened(path: str, _: dict[str, object]) -> StandIn:
        asked.append(path)
        return StandIn()

    for command in ("grade", "calibrate"):
        monkeypatch.setattr(f"tract.apps.cli.{command}.open_judge", opened)
    return asked


def rubric_of(folder: Path, *scores: object) -> Path:
    path = folder / "rubric.yaml"
    path.write_text(json.dumps({"criteria": "Right?", "descriptions": {str(score): "x" for score in scores}}))
    return path


def rows(folder: Path) -> Path:
    (folder / "in.jsonl").write_text(json.dumps({"instruction": "a", "response": "1", "human": 3}) + "\n")
    return folder / "in.jsonl"


@pytest.mark.parametrize("hosted", [False, True])
def test_a_rubric_with_scores_of_its_own_is_refused_before_weights_are_loaded(
    hosted: bool, tmp_path: Path, tract: Command, loaded: list[str]
) -> None:
    judge: list[object] = ["--judge", "gpt", "--backend", "openai", "--api", "chat"] if hosted else ["--judge", TINY]
    arguments = ["grade", rows(tmp_path), "-o", tmp_path / "out.jsonl", *judge, "--rubric", rubric_of(tmp_path, 0, 1)]
    status, output, error = tract(*arguments, "--grid", "1,2,3")
    assert (status, output, len(error.splitlines()), loaded) == (2, "", 1, [])
    assert error.startswith(f"error: --rubric {tmp_path / 'rubric.yaml'}: rubric.descriptions: the score 0 is not one that this judge")
    assert not (tmp_path / "out.jsonl.partial").exists()
    assert tract(*arguments)[0] == 0  # of a chat model, the scores are the rubric's
    assert len(loaded) == 1


def test_a_rubric_of_one_score_off_the_grid_is_no_grid(tmp_path: Path, tract: Command, loaded: list[str]) -> None:
    arguments = ["grade", rows(tmp_path), "-o", tmp_path / "out.jsonl", "--judge", TINY]
    status, _, error = tract(*arguments, "--rubric", rubric_of(tmp_path, 7))
    assert (status, loaded) == (2, [])
    assert "rubric.descriptions: 7 is no grid" in error


@pytest.mark.parametrize("fixed", [True, False])
def test_a_calibration_is_of_the_scores_of_the_judge(fixed: bool, tmp_path: Path, tract: Command, loaded: list[str]) -> None:
    """Even where a rubric may bring others: none of its grades could be used."""
    folder = Path(shutil.copytree(TINY, tmp_path / "exported"))
    open_judge_files(TINY, grid=["1", "2", "3", "4", "5"] if fixed else None).settings.write(folder)
    arguments = ["calibrate", "--judge", folder, "--data", rows(tmp_path), "--target", "human", "--rubric"]
    status, _, error = tract(*arguments, rubric_of(tmp_path, 0, 1))
    assert (status, len(error.splitlines()), loaded) == (2, 1, [])
    assert ("the score 0 is not one" if fixed else "the scores are 0, 1, the judge's own are 1, 2, 3, 4, 5; describe these") in error
    tract(*arguments, rubric_of(tmp_path, 1, 2, 3, 4, 5))
    assert len(loaded) == 1


def test_the_files_are_read_twice_and_the_tokenizer_once(
    tmp_path: Path, tract: Command, monkeypatch: pytest.MonkeyPatch, loaded: list[str]
) -> None:
    from tract.models import tokenizers

    read: list[object] = []
    real = tokenizers._load_tokenizer
    monkeypatch.setattr(tokenizers, "_TOKENIZERS", {})
    monkeypatch.setattr(tokenizers, "_load_tokenizer", lambda cfg: read.append(cfg) or real(cfg))
    arguments = [rows(tmp_path), "-o", tmp_path / "out.jsonl", "--judge", TINY, "--rubric", rubric_of(tmp_path, 1, 5)]
    assert tract("grade", *arguments)[0] == 0
    once = len(read)
    open_judge_files(TINY)
    assert len(read) == once
