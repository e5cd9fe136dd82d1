"""What an experiment would hide of the data: fields that no prompt shows, the ends of long CoTs; a warning names the key."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tract.config.schema import Config
from tract.pipeline.stages.prepare import prepare

TinyConfig = Callable[..., tuple[Config, Any]]
COLUMNS = ("instruction", "response", "cot", "score", "reference_answer", "criteria")


@pytest.fixture
def warnings_of(tiny_config: TinyConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Callable[..., list[str]]:
    """The warnings about the data of ten rows, of which five have a reference answer."""

    def run(*overrides: str, looked_for: str = "does not see", **columns: str) -> list[str]:
        rows = [
            {"instruction": f"Q{n}", "response": f"A{n}", "cot": f"Fine {n}.", "score": 1 + n % 5, "criteria": "Right?", "bad": "wrong"}
            | ({"reference_answer": "R"} if n % 2 else {})
            for n in range(10)
        ]
        (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        mapped = {**{name: name for name in COLUMNS}, **columns}
        given = [f"data.source.columns.{name}={column}" for name, column in mapped.items()]
        cfg, _ = tiny_config("data=columns", f"data.path={tmp_path}/rows.jsonl", *given, *overrides)
        cfg.stage = "stage1"
        with caplog.at_level(logging.WARNING):
            prepare(cfg)
        return [record.getMessage() for record in caplog.records if looked_for in record.getMessage()]

    return run


def test_a_prompt_with_every_field_warns_of_nothing(warnings_of: Callable[..., list[str]]) -> None:
    assert warnings_of("prompt=rubric") == []


def test_a_prompt_without_the_rubric_is_named_with_what_shows_it(warnings_of: Callable[..., list[str]]) -> None:
    (line,) = warnings_of("prompt=short", score_descriptions="{1: bad}")
    assert "criteria (10 of 10 examples), score_descriptions (10 of 10 examples), reference_answer (5 of 10 examples)" in line
    assert "prompt=rubric shows them" in line
    assert "{criteria} and {score_descriptions} and {reference_answer} in prompt.blocks" in line


def test_what_only_the_reference_lacks_is_its_own_key(warnings_of: Callable[..., list[str]]) -> None:
    (line,) = warnings_of("prompt=rubric", "prompt.use_reference=false")
    assert line.endswith("reference_answer (5 of 10 examples); prompt.use_reference=true shows the reference answer")


def test_a_field_that_is_not_mapped_is_not_hidden(warnings_of: Callable[..., list[str]]) -> None:
    assert warnings_of("prompt=short", criteria="null", reference_answer="null") == []


def test_the_placeholder_for_the_whole_rubric_shows_both_parts(warnings_of: Callable[..., list[str]]) -> None:
    blocks = "prompt.blocks=['{instruction}','{response}','{reference_answer}','{rubric}','End with {cue} N']"
    assert warnings_of("prompt=rubric", blocks, score_descriptions="{1: bad}") == []


def test_finished_prompts_are_as_their_source_words_them(warnings_of: Callable[..., list[str]]) -> None:
    assert warnings_of("prompt=finished", "prompt.require_cue_in_prompt=false", prompt="instruction") == []


def test_generated_tasks_name_in_the_instruction_what_is_judged(tiny_config: TinyConfig, caplog: pytest.LogCaptureFixture) -> None:
    cfg, _ = tiny_config("prompt=short")
    cfg.stage = "stage1"
    with caplog.at_level(logging.WARNING):
        prepare(cfg)
    assert not [record for record in caplog.records if "does not see" in record.getMessage()]


def test_annotated_cots_that_are_longer_than_the_judges_own_may_be(tiny_config: TinyConfig, caplog: pytest.LogCaptureFixture) -> None:
    """One token fewer than the longest: that one is named with the number that it needs. With that number, none is."""
    cfg, _ = tiny_config()
    cfg.stage = "stage1"
    longest = int(prepare(cfg).tokens.cot_lengths().max())
    for most, lines in ((longest - 1, 1), (longest, 0)):
        cfg, _ = tiny_config(f"generation.max_cot_tokens={most}")
        cfg.stage = "stage1"
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            prepare(cfg)
        said = [record.getMessage() for record in caplog.records if "annotated CoTs are longer" in record.getMessage()]
        assert len(said) == lines
        assert all(f"so set generation.max_cot_tokens={longest} or more" in line for line in said)


NO_RUBRIC = "the judge sees no criterion"


def test_own_data_without_a_rubric_name_the_key_for_one(warnings_of: Callable[..., list[str]], caplog: pytest.LogCaptureFixture) -> None:
    (line,) = warnings_of("prompt=rubric", looked_for=NO_RUBRIC, criteria="null")
    assert "with data.source.rubric" in line
    caplog.clear()
    assert warnings_of("prompt=rubric", looked_for=NO_RUBRIC, criteria="null") == []  # a second stage of the process
    assert warnings_of("prompt=rubric", "seed=7", looked_for=NO_RUBRIC, criteria="null") == [line]  # another job


@pytest.mark.parametrize(
    ("overrides", "criteria"),
    [
        (["prompt=rubric"], "criteria"),
        (["prompt=short"], "null"),
        (["prompt=rubric", "data.source.rubric={criteria: Right?}"], "null"),
        (["prompt=finished", "prompt.require_cue_in_prompt=false", "data.source.columns.prompt=instruction"], "null"),
    ],
)
def test_a_rubric_or_a_prompt_without_a_place_for_one(warnings_of: Callable[..., list[str]], overrides: list[str], criteria: str) -> None:
    assert warnings_of(*overrides, looked_for=NO_RUBRIC, criteria=criteria) == []


def test_debug_runs_do_not_speak_of_their_few_words(tiny_config: TinyConfig, caplog: pytest.LogCaptureFixture) -> None:
    for name, lines in (("debug", 0), ("mine", 1)):
        cfg, _ = tiny_config("generation.max_cot_tokens=2", f"run.name={name}")
        cfg.stage = "stage1"
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            prepare(cfg)
        assert caplog.text.count("annotated CoTs are longer") == lines
