"""Benchmarks: splits, files and folders by name, their true scores, and what is refused before a judge is loaded."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig

from tract.common.errors import ConfigError, DataError
from tract.config.schema import Config
from tract.pipeline.stages.benchmarks import check_benchmarks, find_benchmarks, target_of, worded_for
from tract.pipeline.validation import validate
from tract.text.prompts import PromptTemplate
from tract.text.schema import Annotation, JudgeExample
from tract.text.score_grid import ScoreGrid

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"
GRID = ScoreGrid(("1", "2", "3", "4", "5"))


@pytest.fixture
def config(compose_config: Callable[..., DictConfig]) -> Callable[..., Config]:
    def run(*benchmarks: str | Path, overrides: tuple[str, ...] = ()) -> Config:
        names = ",".join(str(name) for name in benchmarks)
        few = ("data.source.n_questions=12", "data.source.n_ood_questions=2") if not any("data=" in o for o in overrides) else ()
        return validate(compose_config("model=tiny", *few, f"evaluation.benchmarks=[{names}]", *overrides))

    return run


def test_splits(config: Callable[..., Config]) -> None:
    val, test, ood = find_benchmarks(config("val", "test", "ood"), GRID)
    assert [benchmark.name for benchmark in (val, test, ood)] == ["val", "test", "ood"]
    assert [len(benchmark.rows) for benchmark in (val, test, ood)] == [2, 2, 4]
    assert not {*val.rows} & {*test.rows} | {*test.rows} & {*ood.rows}
    assert val.without_target == 0


def test_files_and_folders(config: Callable[..., Config], tmp_path: Path) -> None:
    """Benchmark files of prometheus-eval, and rows like those of the Feedback Collection; other files of a folder are left alone."""
    folder = tmp_path / "benchmarks"
    folder.mkdir()
    shutil.copy(FIXTURES / "benchmark.json", folder / "b.json")
    shutil.copy(FIXTURES / "feedback_collection.jsonl", folder / "a.jsonl")
    (folder / "README.md").write_text("no benchmark")
    found = find_benchmarks(config(folder, FIXTURES / "benchmark.json"), GRID)
    assert [benchmark.name for benchmark in found] == ["a", "b", "benchmark"]
    rows = json.loads((FIXTURES / "benchmark.json").read_text())
    assert len(found[1].rows) == len(found[2].rows) == len(rows)
    assert all(benchmark.store.example(benchmark.rows[0]).prompt for benchmark in found)


def test_names_that_stand_twice(config: Callable[..., Config], tmp_path: Path) -> None:
    path = shutil.copy(FIXTURES / "benchmark.json", tmp_path / "test.json")
    with pytest.raises(ConfigError, match=r"evaluation.benchmarks: \['test'\] stand for several files or splits"):
        find_benchmarks(config("test", path), GRID)
    with pytest.raises(ConfigError, match=r"\['val'\] stand for several"):
        find_benchmarks(config("val", "val"), GRID)


def test_what_is_neither_split_nor_file(config: Callable[..., Config], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'tset' is neither a split \(train, val, test, ood\) nor a file or folder"):
        find_benchmarks(config("tset"), GRID)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"evaluation.benchmarks: the folder '.*empty' holds no file that ends in \.json"):
        find_benchmarks(config(tmp_path / "empty"), GRID)


def test_a_split_without_examples(config: Callable[..., Config]) -> None:
    with pytest.raises(ConfigError, match=r"'test' has no example with a true score; set data.test_fraction above 0"):
        find_benchmarks(config("test", overrides=("data.test_fraction=0",)), GRID)
    with pytest.raises(ConfigError, match=r"'ood' has no example with a true score; give one that has"):
        find_benchmarks(config("ood", overrides=("data.source.n_ood_questions=0",)), GRID)


def test_examples_without_a_true_score_are_left_out_and_counted(
    config: Callable[..., Config], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Rows of one's own without feedback and score are no training data, but prompts all the same."""
    scores = [1, 2, None, 4, 5, None, 1, 2]
    rows = [
        {"question": f"q{k}", "answer": f"a{k}", "comment": score and f"feedback {k}", "points": score} for k, score in enumerate(scores)
    ]
    (tmp_path / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    names = {"instruction": "question", "response": "answer", "cot": "comment", "score": "points"}
    columns = [f"data.source.columns.{field}={name}" for field, name in names.items()]
    whole = ("data.val_fraction=0", "data.test_fraction=0", "train.keep_weights=last")
    caplog.set_level(logging.WARNING)
    (train,) = find_benchmarks(config("train", overrides=("data=columns", f"data.path={tmp_path}/own.jsonl", *columns, *whole)), GRID)
    assert len(train.rows) == 6
    assert train.without_target == 2
    assert "evaluate: 2 of the 8 examples of train have no true score and are left out" in caplog.text


def test_max_items_are_spread_and_ascend(config: Callable[..., Config]) -> None:
    (whole,) = find_benchmarks(config("train"), GRID)
    (few,) = find_benchmarks(config("train", overrides=("evaluation.max_items=5",)), GRID)
    assert len(few.rows) == 5
    assert list(few.rows) == sorted(few.rows)
    assert set(few.rows) < set(whole.rows)
    assert few.rows != whole.rows[:5]


@pytest.mark.parametrize(("target", "expected"), [("true", 2.0), ("annotated", 4.0)])
def test_the_true_score_is_the_fact_or_the_annotation(target: str, expected: float) -> None:
    example = JudgeExample("a", "q", "ask", "answer", annotations=(Annotation("", 3.0), Annotation("", 5.0)), meta={"true_score": "2"})
    assert target_of(example, target) == expected
    assert target_of(JudgeExample("a", "q", "ask", "answer"), target) is None


def test_noise_moves_the_annotated_score_alone(config: Callable[..., Config]) -> None:
    noisy = ("data.source.score_noise=1.0",)
    (benchmark,) = find_benchmarks(config("train", overrides=noisy), GRID)
    examples = [benchmark.store.example(row) for row in benchmark.rows]
    assert all(abs((target_of(e, "true") or 0) - (target_of(e, "annotated") or 0)) == 1 for e in examples)


def test_prompts_that_cannot_be_made_are_refused_ahead(config: Callable[..., Config]) -> None:
    with pytest.raises(DataError, match="has no finished prompt"):
        check_benchmarks(config("test", overrides=("evaluation.prompt=finished",)))
    check_benchmarks(config(FIXTURES / "benchmark.json", overrides=("evaluation.prompt=finished",)))


def test_finished_prompts_are_the_benchmarks_own_words(config: Callable[..., Config], tiny_layout: Any) -> None:
    template = PromptTemplate("template", "You judge.", ("{response}",), " So the score is ", True, True, True, True)
    assert worded_for(config("test"), template) is template
    cfg = config(FIXTURES / "benchmark.json", overrides=("evaluation.prompt=finished",))
    finished = worded_for(cfg, template)
    (benchmark,) = find_benchmarks(cfg, GRID)
    example = benchmark.store.example(0)
    prompt = finished.render(example, GRID)
    assert prompt.user == example.prompt
    assert prompt.system == ""
    assert finished.cue == template.cue
