"""From rows in the form of the Feedback Collection to a run: what the fit stage trains on, what it says of it, and what it refuses."""

from __future__ import annotations

import json
import logging
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tract.common.errors import DataError
from tract.config.schema import Config
from tract.models.base_layout import base_layout
from tract.pipeline.stages.benchmarks import find_benchmarks, worded_for
from tract.pipeline.stages.fit import fit
from tract.pipeline.stages.prepare import prepare
from tract.pipeline.validation import validate
from tract.text.prompts import PromptTemplate

TinyConfig = Callable[..., tuple[Config, Any]]
ASKED = "(write a feedback for criteria) [RESULT] (an integer number between 1 and 5)"
TASK = f'3. The output format should look as follows: "Feedback: {ASKED}"'
ENDINGS = (
    " So the overall score is {}.",
    " Therefore, the overall score is {}.",
    "\n\nFinal rating: {}/5",
    " It meets the criteria for a score of {}.",
)
WORDS = ["clear", "short", "right", "wrong", "vague", "deep", "plain", "good", "dull", "exact", "loose", "brief"]


def write_rows(path: Path, ending: Callable[[int, int], str], count: int = 60) -> None:
    rng = random.Random(0)
    with path.open("w", encoding="utf-8") as file:
        for k in range(count):
            score, feedback = rng.randint(1, 5), " ".join(rng.choices(WORDS, k=6))
            row = {
                "instruction": f"###Task Description:\n{TASK}\n\n###Response to evaluate:\nAnswer {k}\n\n###Feedback: ",
                "orig_instruction": f"Why {k}?", "orig_response": f"Answer {k}",
                "orig_reference_answer": "Because.", "orig_criteria": "Right?",
                **{f"orig_score{n}_description": f"level {n}" for n in range(1, 6)},
                "orig_feedback": f"It is {feedback}.{ending(k, score)}", "orig_score": str(score),
            }  # fmt: skip
            file.write(json.dumps({**row, "output": f"{row['orig_feedback']} [RESULT] {score}"}) + "\n")


@pytest.fixture
def rows_config(tiny_config: TinyConfig, tmp_path: Path) -> Callable[..., tuple[Config, Any]]:
    path = tmp_path / "rows.jsonl"

    def run(ending: Callable[[int, int], str], *overrides: str) -> tuple[Config, Any]:
        write_rows(path, ending)
        return tiny_config("data=feedback_jsonl", f"data.path={path}", "train.max_steps=1", *overrides)

    return run


def test_no_score_stands_before_the_cue_and_all_is_counted(
    rows_config: Callable[..., tuple[Config, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    # Every thirtieth row only mentions its score, and states none.
    cfg, resolved = rows_config(lambda k, score: ENDINGS[3 if k % 30 == 29 else k % 3].format(score))
    with caplog.at_level(logging.INFO, "tract"):
        folder = fit(cfg, resolved)
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    counts = manifest["data"]["counts"]
    assert counts["scores_in_cots"] == {"answer cue": 20, "kept in passing": 2, "label": 18, "none found": 2, "sentence": 20}
    assert counts["score_leak"]["cots"] == 60
    preview = (folder / "preview.txt").read_text(encoding="utf-8")
    for text in (preview, caplog.text):
        assert all(part in text for part in ("20 answer cue", "18 label", "20 sentence", "2 none found", "2 kept in passing"))
    shown = preview.split("kind | trained by\n")[1].splitlines()
    cot = "".join(line.split(" | ")[1][1:-1] for line in shown if " | cot | " in line)
    assert "score" not in cot
    assert not any(digit in cot for digit in "12345")
    cfg.stage = "stage1"
    for row in prepare(cfg).tokens.dataset:
        text = base_layout(cfg)[1].tokenizer.decode(row["cot_ids"][0])
        assert "overall" not in text
        assert "rating" not in text


def test_a_leak_in_unknown_words_is_refused_before_a_model_is_loaded(
    rows_config: Callable[..., tuple[Config, Any]], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ending(_: int, score: int) -> str:
        return f" Alama yake ni {score}."

    cfg, resolved = rows_config(ending)
    with monkeypatch.context() as patched:
        patched.setattr("tract.pipeline.stages.fit.load_model", lambda *_, **__: pytest.fail("a model was loaded"))
        with pytest.raises(DataError, match=r"data: of 100\.0% of the 60 CoTs .*data\.on_score_leak=warn"):
            fit(cfg, resolved)
    cfg, resolved = rows_config(ending, "data.on_score_leak=warn")
    assert fit(cfg, resolved).is_dir()
    assert "hold their own score" in caplog.text
    # What has no CoT has none that leaks.
    cfg, _ = rows_config(ending, "objective=regression_only", "pipeline=[stage1,predict,evaluate]")
    assert prepare(cfg).counts["score_leak"]["cots"] == 0


@pytest.mark.parametrize(("option", "asked"), [("finished", "So the overall score is"), ("finished_official", "[RESULT]")])
def test_finished_prompts_ask_for_the_cue_in_training_generation_and_evaluation(
    option: str, asked: str, rows_config: Callable[..., tuple[Config, Any]]
) -> None:
    cfg, _ = rows_config(lambda _, score: f" Score: {score}", f"prompt={option}", "evaluation.benchmarks=[test]", "data.test_fraction=0.3")
    tokenizer, layout, template = base_layout(cfg)
    data = prepare(cfg)
    text = tokenizer.decode(data.tokens.dataset[0]["prompt_ids"])
    assert f"(write a feedback for criteria) {asked} (an integer number between 1 and 5)" in text
    (benchmark,) = find_benchmarks(cfg, layout.grid)
    example = benchmark.store.example(benchmark.rows[0])
    for words in (worded_for(cfg, template), template):
        assert f"{asked} (an integer" in words.render(example, layout.grid).user
    # A judge that was trained with the project's own wording, on a benchmark's finished prompts.
    own = validate(rows_config(lambda _, score: f" Score: {score}", "evaluation.prompt=finished")[1])
    shown = worded_for(own, PromptTemplate(**{**vars(own.prompt), "blocks": tuple(own.prompt.blocks)})).render(example, layout.grid).user
    assert "So the overall score is (an integer" in shown
