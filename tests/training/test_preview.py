"""The preview says of each token what trains it."""

from __future__ import annotations

import dataclasses

import pytest
from judge_items import TRACT, make_items

from tract.method.objective import Objective
from tract.text.layout import SequenceLayout
from tract.training.preview import preview

CE_ONLY = dataclasses.replace(TRACT, score_loss_weight=0.0, ce_on_score=True)
REGRESSION_ONLY = dataclasses.replace(TRACT, ce_weight=0.0, use_cot=False)


@pytest.mark.parametrize(
    ("objective", "cue", "score"),
    [
        (TRACT, "cross-entropy", "squared error"),
        (CE_ONLY, "cross-entropy", "cross-entropy"),
        (REGRESSION_ONLY, "nothing", "squared error"),
        (dataclasses.replace(TRACT, ce_on_score=True), "cross-entropy", "cross-entropy and squared error"),
    ],
)
def test_each_token_with_its_kind_and_what_trains_it(tiny_layout: SequenceLayout, objective: Objective, cue: str, score: str) -> None:
    item = make_items(tiny_layout, 1)[0]
    text = preview(item, tiny_layout, objective)
    assert tiny_layout.tokenizer.decode(item.prompt_ids) in text
    cot, index = item.continuations[0]
    table = text.split("trained by\n")[1].splitlines()
    assert len(table) == len(cot) + len(tiny_layout.cue_ids) + len(tiny_layout.score_ids[index]) + 1
    label = tiny_layout.grid.labels[index]
    assert table[-2].endswith(f"| {label!r} | score | {score}")
    assert table[-1].endswith("| '<|end|>' | end | " + cue)
    # The one position where the score is read predicts the score.
    assert [row for row in table if "*" in row.split("|")[0]] == [table[-2]]
