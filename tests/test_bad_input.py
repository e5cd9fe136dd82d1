"""What users get wrong, through the real `train.py`: one line that names key or row, what was found and what is accepted."""

from __future__ import annotations

import importlib.util
import json
import logging
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.core.global_hydra import GlobalHydra

from tract.pipeline.entry import launch

ROOT = Path(__file__).resolve().parents[1]
TINY_MODEL = ROOT / "tract" / "assets" / "tiny"
Refused = Callable[..., str]


def load_main() -> Callable[..., None]:
    spec = importlib.util.spec_from_file_location("train_script", ROOT / "train.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    main: Callable[..., None] = module.main
    return main


@pytest.fixture
def run_train(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[..., None]]:
    """Runs train.py's task on the tiny model and a few generated rows, with overrides."""
    root, tract = logging.getLogger(), logging.getLogger("tract")
    handlers, levels = root.handlers[:], (root.level, tract.level)  # Hydra sets them anew

    def run(*overrides: str) -> None:
        own_data = any(override.startswith("data=") for override in overrides)
        small = [] if own_data else ["data.source.n_questions=12", "data.source.n_ood_questions=0"]
        steps = ["batch.global_batch_size=4", "batch.micro_batch_size=2", "batch.max_tokens_per_micro_batch=null", "train.max_steps=1"]
        places = [f"paths.runs={tmp_path}/runs", f"paths.cache={tmp_path}/cache", "logger=none", "trainer.enable_progress_bar=false"]
        monkeypatch.setattr(sys, "argv", ["train.py", "model=tiny", "run.subprocess_stages=false", *small, *steps, *places, *overrides])
        GlobalHydra.instance().clear()
        launch(load_main(), "train")

    yield run
    root.handlers[:] = handlers
    root.setLevel(levels[0])
    tract.setLevel(levels[1])


@pytest.fixture
def refused(run_train: Callable[..., None], capfd: pytest.CaptureFixture[str]) -> Refused:
    """The one line that train.py ends with; checks that it is one, on the right stream, with status 2."""

    def run(*overrides: str) -> str:
        with pytest.raises(SystemExit) as ended:
            run_train(*overrides)
        output = capfd.readouterr()
        assert ended.value.code == 2
        errors = [line for line in output.err.splitlines() if "error: " in line]
        assert len(errors) == 1, output.err
        assert output.err.endswith(errors[0] + "\n"), "the error is the last line"
        assert errors[0].startswith("error: ")
        assert "Traceback" not in output.err + output.out
        return errors[0].removeprefix("error: ")

    return run


def row(number: int, **changes: Any) -> dict[str, Any]:
    """A row in the schema of the Feedback Collection."""
    cot = f"The answer {number} is short and right."
    return {
        "idx": number,
        "instruction": f"Judge answer {number}.",
        "orig_instruction": f"Question {number}?",
        "orig_response": f"Answer {number}.",
        "orig_reference_answer": "Right.",
        "orig_criteria": "Is it right?",
        **{f"orig_score{n}_description": f"Level {n}." for n in range(1, 6)},
        "orig_feedback": cot,
        "orig_score": "4",
        "output": f"{cot} So the overall score is 4. [RESULT] 4",
        **changes,
    }


@pytest.fixture
def rows_file(tmp_path: Path) -> Callable[..., str]:
    """Writes twelve good rows and the given lines after the second; returns the choice of that file."""

    def write(*lines: str) -> str:
        good = [json.dumps(row(number)) for number in range(12)]
        path = tmp_path / "judged.jsonl"
        path.write_text("\n".join([*good[:2], *lines, *good[2:]]) + "\n", encoding="utf-8")
        return f"data.path={path}"

    return write


BAD_ROWS = {
    "score outside the grid": (
        json.dumps(row(50, orig_score="7", output=None)),
        ["orig_score: score 7 is not on the grid {1, 2, 3, 4, 5}"],
    ),
    "score between two": (json.dumps(row(50, orig_score="3.5", output=None)), ["orig_score: score 3.5 is not on the grid"]),
    "two scores": (json.dumps(row(50, orig_score="2")), ["orig_score: 2 contradicts the score 4 at the end of output"]),
    "CoT that is a list": (json.dumps(row(50, orig_feedback=["Right."])), ["orig_feedback: found ['Right.']; text is accepted"]),
    "no JSON": ('{"orig_instruction": ', ["not JSON: ", "each line must hold one JSON object"]),
    "no object": ("[1, 2]", ["not an object: the line holds a list"]),
    "missing column": (json.dumps({"orig_instruction": "x"}), ["instruction"]),
}


@pytest.mark.parametrize("case", BAD_ROWS)
def test_bad_row_is_named_by_file_and_line(case: str, refused: Refused, rows_file: Callable[..., str]) -> None:
    line, pieces = BAD_ROWS[case]
    message = refused("data=feedback_jsonl", rows_file(line))
    assert message.startswith("judged.jsonl:3: ")
    assert [piece for piece in pieces if piece not in message] == [], message
    assert message.endswith("(set data.on_bad_row=skip to leave such rows out)")


def test_bad_rows_are_skipped_listed_and_counted(run_train: Callable[..., None], rows_file: Callable[..., str], tmp_path: Path) -> None:
    lines = [line for line, _ in BAD_ROWS.values()]
    run_train("stages=[stage1]", "data=feedback_jsonl", rows_file(*lines), "data.on_bad_row=skip")
    (rejected,) = (tmp_path / "cache").rglob("rejected.jsonl")
    found = [json.loads(line) for line in rejected.read_text().splitlines()]
    assert [entry["place"] for entry in found] == [f"judged.jsonl:{number}" for number in range(3, 3 + len(lines))]
    assert [(entry["file"], entry["line"]) for entry in found] == [("judged.jsonl", number) for number in range(3, 3 + len(lines))]
    for entry, (_, pieces) in zip(found, BAD_ROWS.values(), strict=True):
        assert [piece for piece in pieces if piece not in entry["reason"]] == []
        assert entry["row"]
    (manifest,) = (tmp_path / "runs" / "stages").glob("stage1-*/manifest.json")
    counts = json.loads(manifest.read_text())["data"]["counts"]
    assert counts["rows_read"] == 12 + len(lines)
    assert counts["rows_rejected"] == len(lines)
    assert sum(counts["rejected_by_reason"].values()) == len(lines)
    assert counts["rejected_by_reason"]["orig_score"] == 3
    assert counts["examples"] == 12


@pytest.mark.parametrize(
    ("overrides", "pieces"),
    [
        (["data=feedback_jsonl", "data.path=nowhere.jsonl"], ["data.path: nowhere.jsonl does not exist; give a .jsonl"]),
        (
            ["data=feedback_jsonl", "data.path=nobody/nothing"],
            ["data.path: 'nobody/nothing'", "neither a local file or folder nor a data set"],
        ),
        (["data=columns", "data.path=x.csv"], ["data.source.columns: a finished prompt, or instruction and response, are required"]),
        (["data.source.n_questions=0"], ["data.source.n_questions: 0 is below 1"]),
        (
            ["data.source.n_questions=3", "data.source.responses_per_question=1"],
            ["batch.global_batch_size: 4 is more than the 1 items of the training"],
        ),
        (
            ["data.source.n_questions=2"],
            ["data.val_fraction: 0.1 with data.test_fraction 0.1 leaves no question for training: 2 questions"],
        ),
        (["data.val_fraction=1"], ["data.val_fraction: 1 is not a share of the questions"]),
        (["data.max_length=100", "data.truncation=raise"], ["data.max_length: 100 tokens cannot hold example", "data.truncation=drop"]),
        (
            ["data.max_length=100", "data.truncation=drop"],
            ["data: no usable item in the training split", "check data.path, data.max_length"],
        ),
        (["data.shorten=[cot]"], ["data.shorten: 'cot' cannot be shortened; accepted are response, reference_answer"]),
        (["grid=one_to_ten"], ["grid.labels: ['1', '2'", "does not go with data.source.n_constraints = 4"]),
        (["prompt=finished"], ["has no finished prompt; use prompt=rubric"]),
        (["model.pad_token=nothing"], ["model.pad_token: 'nothing' is no token of 'assets/tiny'; choose one of its tokens, e.g. '<unk>'"]),
        (["model.chat_template=nowhere.jinja"], ["model.chat_template: no file 'nowhere.jinja'; give the path of a Jinja chat template"]),
        (["model.package=no_such_package"], ["model.package: 'no_such_package' is not installed; run `make setup`"]),
        (["model.name_or_path='assets/none*'"], ["model.name_or_path: 'assets/none*' matches 0 files in package 'tract', not one"]),
        (["model.name_or_path=nobody/nothing"], ["model.name_or_path: cannot load 'nobody/nothing': "]),
        (["adapter.target_modules=[no_such_layer]"], ["adapter.target_modules: ['no_such_layer'] do not fit "]),
        (
            ["train.max_steps=-1", "scheduler.warmup_steps=99", "scheduler.warmup_fraction=null"],
            ["scheduler.warmup_steps: 99 steps of warm-up"],
        ),
    ],
)
def test_one_line_that_names_the_key(overrides: list[str], pieces: list[str], refused: Refused) -> None:
    message = refused(*overrides)
    assert [piece for piece in pieces if piece not in message] == [], message


def changed_tiny_model(folder: Path, change: Callable[[dict[str, Any]], Any], *, template: bool = True) -> list[str]:
    """A copy of the tiny model with another tokenizer configuration, as overrides."""
    shutil.copytree(TINY_MODEL, folder)
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config))
    if not template:
        (folder / "chat_template.jinja").unlink()
    return ["model.package=null", f"model.name_or_path={folder}"]


def test_model_without_chat_template(refused: Refused, tmp_path: Path) -> None:
    overrides = changed_tiny_model(tmp_path / "model", lambda config: config.pop("chat_template", None), template=False)
    message = refused(*overrides)
    assert message.startswith(f"model.name_or_path: the tokenizer of '{tmp_path / 'model'}' has no chat template;")
    assert "set model.chat_template to a Jinja file" in message


def test_model_without_pad_token(refused: Refused, tmp_path: Path) -> None:
    overrides = changed_tiny_model(tmp_path / "model", lambda config: config.pop("pad_token", None))
    message = refused(*overrides)
    assert message.startswith(
        f"model.pad_token: the tokenizer of '{tmp_path / 'model'}' has no pad token; set model.pad_token to one of its"
    )


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_gpu_on_a_machine_without_one(refused: Refused) -> None:
    message = refused("trainer.accelerator=gpu")
    assert message.startswith("trainer.devices: 1 GPUs are asked for, 0 are present; set trainer.accelerator=cpu")


def test_qlora_without_bitsandbytes(refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "bitsandbytes" else found(name, *rest))
    assert refused("adapter=qlora", "model.random_init=false").startswith(
        "adapter.kind: qlora needs the package bitsandbytes; run `pip install bitsandbytes`"
    )


def test_schedule_with_an_argument_that_it_does_not_take(refused: Refused) -> None:
    message = refused("+scheduler.kwargs.min_learning_rate=1")
    assert message.startswith("scheduler")
    assert "min_learning_rate" in message


@pytest.mark.slow
def test_the_real_script_on_a_bad_row(rows_file: Callable[..., str], tmp_path: Path) -> None:
    command = [
        sys.executable,
        "train.py",
        "model=tiny",
        "data=feedback_jsonl",
        rows_file("{"),
        "logger=none",
        f"paths.cache={tmp_path}/cache",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: judged.jsonl:3: not JSON: ")


@pytest.mark.parametrize("key", ["paths.runs", "paths.cache"])
def test_a_place_that_cannot_be_made_is_one_line(key: str, refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    wanted = f"{key}: cannot write to '{tmp_path}/file/below' (Not a directory); give a folder that can be made and written to"
    assert refused(f"{key}={tmp_path}/file/below") == wanted


@pytest.mark.parametrize("key", ["paths.runs", "paths.cache"])
def test_a_place_that_is_not_the_user_s_is_one_line(key: str, refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "others"
    monkeypatch.setattr("tract.pipeline.checks.os.access", lambda path, mode: str(path) != str(place))
    assert refused(f"{key}={place}").startswith(f"{key}: cannot write to '{place}' (Permission denied); ")
