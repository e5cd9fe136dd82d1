"""A predictor is one entry of a table, or a function of the user's: configuration, scores, report and judges read it from there."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from example_evaluation import make_evaluation
from html_page import Page
from omegaconf import DictConfig

from tract.common.errors import ConfigError
from tract.evaluation import predictors
from tract.evaluation.items import BenchmarkItem
from tract.evaluation.predictors import OF_COTS, PREDICTORS, Predictor, Readout, meanings_of, predictor_of
from tract.evaluation.report import html
from tract.evaluation.scoring import predictions, score_items
from tract.inference.judgement import CUE, Judgement
from tract.pipeline.validation import validate
from tract.text.score_grid import ScoreGrid

GRID = ScoreGrid(("1", "2", "3"))
MINE = """
def upper_half(probabilities, values):
    \"\"\"Mean of the scores above the middle one, by their probabilities.

    More words.
    \"\"\"
    above = values > values[len(values) // 2]
    mass = probabilities[above].sum()
    return None if mass == 0 else (probabilities[above] * values[above]).sum() / mass

def no_words(probabilities, values):
    return float("nan")

def text(probabilities, values):
    return "three"

one_argument = lambda probabilities: 1.0
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_predictors.py").write_text(MINE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_predictors", raising=False)
    predictor_of.cache_clear()


def judgement(row: int, *probabilities: float) -> Judgement:
    return Judgement(
        f"e{row}", row, 0, cot_ids=(5,), cot="Good.", finish=CUE, forced_decode=1, raw_output=None, probabilities=probabilities
    )


def score(name: str, *judgements: Judgement) -> list[float]:
    items = [BenchmarkItem(f"e{row}", row, "q", 2.0, 3, "ok", {}) for row in range(len(judgements))]
    scored = score_items("test", items, judgements, [name], GRID, " Score: ", 2.0)
    assert scored.failures[name].tolist() == [0.0 if found is not None else 1.0 for found in map(_read(name), judgements)]
    return scored.scores[name].tolist()


def _read(name: str) -> Callable[[Judgement], float | None]:
    return lambda one: predictor_of(name).read(Readout(np.asarray(one.probabilities), np.asarray(GRID.values), 1, None, GRID, " Score: "))


def test_a_function_of_ones_own_reads_scores_and_counts_its_failures(mine: None) -> None:
    name = "my_predictors.upper_half"
    assert score(name, judgement(0, 0.1, 0.2, 0.6), judgement(1, 0.5, 0.5, 0.0)) == [3.0, 2.0]
    assert score("my_predictors.no_words", judgement(0, 0.1, 0.2, 0.6)) == [2.0]
    meanings = meanings_of([name, "rail", "my_predictors.no_words"])
    assert list(meanings) == ["rail", name, "my_predictors.no_words"]
    assert meanings[name] == "Mean of the scores above the middle one, by their probabilities."
    assert meanings["my_predictors.no_words"] == "the function my_predictors.no_words."


def test_it_is_in_the_report(mine: None) -> None:
    page = Page(html(make_evaluation(predictors=("rail", "my_predictors.upper_half"))))
    assert "Mean of the scores above the middle one, by their probabilities." in page.texts


def test_a_report_of_one_that_is_gone_says_so() -> None:
    assert meanings_of(["gone_module.f"]) == {"gone_module.f": "a predictor that is not installed here (gone_module.f)."}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("upper_half", "'upper_half' is unknown; accepted are rail, .*no_cot, or the dotted path of a function"),
        ("rial", r"'rial' is unknown \(did you mean rail or rail_normalized\?\); accepted are rail, "),
        ("no_such_module.f", "'no_such_module.f' cannot be imported"),
        ("my_predictors.nothing", "'my_predictors.nothing' cannot be imported"),
        ("my_predictors.text", "on three scores it raised ValueError: could not convert string"),
        ("my_predictors.one_argument", "must take .* on three scores it raised TypeError"),
    ],
)
def test_what_is_no_predictor_is_refused_before_anything_runs(
    name: str, message: str, mine: None, compose_config: Callable[..., DictConfig]
) -> None:
    with pytest.raises(ConfigError, match=f"evaluation.predictors: .*{message}"):
        validate(compose_config("model=tiny", f"evaluation.predictors=[rail,{name}]"))


def test_the_main_predictor_may_be_ones_own(mine: None, compose_config: Callable[..., DictConfig]) -> None:
    given = "evaluation.predictors=[rail,my_predictors.upper_half]"
    assert validate(compose_config("model=tiny", given, "evaluation.main_predictor=my_predictors.upper_half"))
    with pytest.raises(ConfigError, match="evaluation.main_predictor: 'my_predictors.no_words' is not one of"):
        validate(compose_config("model=tiny", given, "evaluation.main_predictor=my_predictors.no_words"))


def test_an_entry_of_the_table_is_all_that_a_predictor_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    """What reads the names at import takes them from the same table."""
    monkeypatch.setitem(PREDICTORS, "lowest", Predictor("the lowest score.", lambda reading: reading.grid.lowest))
    assert score("lowest", judgement(0, 0.1, 0.2, 0.6)) == [1.0]
    assert meanings_of(["lowest"]) == {"lowest": "the lowest score."}
    assert predictors.PREDICTORS is PREDICTORS
    assert OF_COTS == ("rail", "rail_normalized", "argmax", "median", "decode_forced", "decode_free")
    assert set(predictions(judgement(0, 0.1, 0.2, 0.6), GRID, "")) == set(OF_COTS) - {"decode_free"}
    assert json.dumps(predictions(judgement(0, 0.1, 0.2, 0.6), GRID, ""))
