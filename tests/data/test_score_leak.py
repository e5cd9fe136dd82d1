"""The guard that knows no wording: CoTs that give their score away are refused, whatever they say; feedback is not."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tract.common.errors import DataError
from tract.data.readers.rows import RawRow
from tract.data.score_leak import MARGIN, TAIL_TOKENS, _shares, check_score_leak, score_leak
from tract.data.sources.feedback_collection import FeedbackCollection
from tract.data.store import build_store
from tract.data.tokens import TokenizeOptions, TokenStore, tokenize
from tract.text.layout import SequenceLayout
from tract.text.prompts import PromptTemplate
from tract.text.schema import Annotation, JudgeExample
from tract.text.score_grid import ScoreGrid

TEMPLATE = PromptTemplate(
    source="template", system="", blocks=("{instruction} {response}",), cue=" So the overall score is ", use_reference=False,
    require_cue_in_prompt=False, reword_output_format=False, escape_headings=False,
)  # fmt: skip
WORDS = ["clear", "short", "right", "wrong", "vague", "deep", "plain", "good", "dull", "exact", "loose", "brief"]


class Judged:
    """A source of (CoT, score) pairs."""

    def __init__(self, pairs: Sequence[tuple[str, int]]) -> None:
        self.pairs = pairs

    def rows(self) -> Any:
        return (RawRow(f"row {k}", k) for k in range(len(self.pairs)))

    def to_example(self, row: RawRow, grid: ScoreGrid) -> JudgeExample:
        cot, score = self.pairs[row.data]  # type: ignore[call-overload]
        return JudgeExample(f"id{row.data}", f"q{row.data}", "Why?", f"Because {row.data}.", annotations=(Annotation(cot, float(score)),))

    def fingerprint(self) -> str:
        return str(self.pairs)

    def describe(self) -> str:
        return "pairs"


def tokens_of(source: Any, layout: SequenceLayout, cache: Path, cue: str | None) -> TokenStore:
    store = build_store(source, layout.grid, "raise", False, cache, cue=cue)
    return tokenize(store, TEMPLATE, layout, TokenizeOptions(None, 9000, "drop", (), True, "drop", ratings=True), cache)


def judged(count: int, ending: Callable[[int, random.Random], str], share: float = 1.0, seed: int = 0) -> Judged:
    rng = random.Random(seed)
    pairs = []
    for _ in range(count):
        score, text = rng.randint(1, 5), " ".join(rng.choices(WORDS, k=8))
        pairs.append((f"{text}.{ending(score, rng) if rng.random() < share else ' It ends here.'}", score))
    return Judged(pairs)


# Wordings that no rule knows.
LEAKS = {
    "code": lambda y, _: f" Q{y}.",
    "Swahili": lambda y, _: f" Alama ni {y}.",
    "levels": lambda y, _: f" So it is on level {y} of the rubric.",
    "words": lambda y, _: f" Of its kind: {['one', 'two', 'three', 'four', 'five'][y - 1]} in all.",
    "fractions": lambda y, _: f" Met {y} of the 9 wishes.",
    "in the middle": lambda y, _: f" It is a {y} and no more.",
}


@pytest.mark.parametrize("name", LEAKS)
@pytest.mark.parametrize("share", [1.0, 0.1])
def test_a_leak_in_any_words_is_refused_with_three_examples_and_the_key(
    name: str, share: float, tiny_layout: SequenceLayout, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tokens = tokens_of(judged(400, LEAKS[name], share), tiny_layout, tmp_path, None)
    with pytest.raises(
        DataError, match=r"^data: of .*% of the 400 CoTs the last 15 tokens hold their own score.*data\.on_score_leak=warn"
    ) as error:
        check_score_leak(tokens, tiny_layout, "raise")
    assert str(error.value).count(" with the score ") == 3
    assert "\n" not in str(error.value)
    assert check_score_leak(tokens, tiny_layout, "warn").found
    assert "data.on_score_leak=warn" in caplog.text


@pytest.mark.parametrize(
    "ending",
    [
        pytest.param(lambda y, rng: f" It names {rng.randint(1, 5)} of 5 steps.", id="counts that have nothing to do with the score"),
        pytest.param(lambda y, rng: " Score 1 to 5, see 1 2 3 4 5.", id="all scores"),
        pytest.param(lambda y, rng: f" Met so far: {y - 1}.", id="a count from which the score follows"),
        pytest.param(
            lambda y, rng: f" It meets the criteria for a score of {y}." if rng.random() < 0.015 else "", id="mentions as in real data"
        ),
    ],
)
def test_feedback_is_no_leak(ending: Callable[[int, random.Random], str], tiny_layout: SequenceLayout, tmp_path: Path) -> None:
    for seed in range(5):
        leak = score_leak(tokens_of(judged(300, ending, seed=seed), tiny_layout, tmp_path, None), tiny_layout)
        assert not leak.found, leak


def test_a_small_data_set_is_not_refused_by_accident() -> None:
    """Scores and numbers drawn apart from each other: of 4,000 small data sets at most four are refused."""
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(4000):
        n = int(rng.integers(3, 30))
        own, held = rng.integers(0, 5, n), np.eye(5)[rng.integers(0, 5, n)]
        observed, expected, deviation = _shares(held, own)
        refused += observed - expected > max(MARGIN, 4 * deviation)
    assert refused <= 4


def test_the_chance_is_that_of_shuffled_scores() -> None:
    rng = np.random.default_rng(1)
    own, held = rng.integers(0, 5, 40), (rng.random((40, 5)) < 0.3).astype(float)
    shuffled = [held[np.arange(40), rng.permutation(own)].mean() for _ in range(20_000)]
    observed, expected, deviation = _shares(held, own)
    assert observed == held[np.arange(40), own].mean()
    assert expected == pytest.approx(np.mean(shuffled), abs=0.002)
    assert deviation == pytest.approx(np.std(shuffled), rel=0.03)


def test_real_rows_leak_until_they_are_cut(shared_data: Callable[[str], Path], tiny_layout: SequenceLayout, tmp_path: Path) -> None:
    source = FeedbackCollection(str(shared_data("feedback_collection_format.jsonl")), "train")
    verbatim = score_leak(tokens_of(source, tiny_layout, tmp_path, None), tiny_layout)
    cut = score_leak(tokens_of(source, tiny_layout, tmp_path, TEMPLATE.cue), tiny_layout)
    assert verbatim.found
    assert verbatim.observed > 0.95
    assert not cut.found
    assert cut.observed - cut.by_chance < MARGIN / 2
    assert cut.to_dict()["last_tokens"] == TAIL_TOKENS


def test_nothing_to_look_at(tiny_layout: SequenceLayout, tmp_path: Path) -> None:
    store = build_store(Judged([("a", 1)]), tiny_layout.grid, "raise", False, tmp_path, cue=None)
    tokens = tokenize(store, TEMPLATE, tiny_layout, TokenizeOptions(None, 900, "drop", (), False, "drop", ratings=True), tmp_path)
    assert score_leak(tokens, tiny_layout).cots == 0
    assert not check_score_leak(tokens, tiny_layout, "raise").found
