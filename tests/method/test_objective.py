"""The objective: hand-computed values, plain Hugging Face cross-entropy, and normalisation over the whole step."""

from __future__ import annotations

import dataclasses
import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from judge_items import TRACT

from tract.common.errors import ConfigError
from tract.data.steps import StepTotals
from tract.method.objective import ObjectiveParts, objective_parts, step_shares
from tract.method.predictors import score_pairs
from tract.method.score_losses import ScoreLoss, score_loss_of, squared_error
from tract.text.score_grid import ScoreTrie
from tract.text.token_tree import TokenKind

TRIE = ScoreTrie.build("12", [[0], [1]])


def _parts(
    logits: torch.Tensor,
    rows: list[int],
    ids: list[int],
    reads: list[list[int]],
    scores: list[float],
    *,
    loss: ScoreLoss = squared_error,
    normalize: bool = False,
) -> ObjectiveParts:
    log_probs = torch.log_softmax(logits.float(), dim=-1)
    nodes, tokens = score_pairs(TRIE, logits.device)
    of_targets = log_probs[torch.tensor(rows, dtype=torch.long), torch.tensor(ids, dtype=torch.long)]
    of_scores = log_probs[torch.tensor(reads)[:, nodes], tokens]
    return objective_parts(
        of_targets, of_scores, torch.tensor(scores), TRIE, torch.tensor([1.0, 2.0]), score_loss=loss, normalize=normalize
    )


def test_hand_computed_value() -> None:
    """One CoT token with p = 1/4, then p(1) = 1/2 and p(2) = 1/4 where the truth is 2.

    y_hat = 1 * 1/2 + 2 * 1/4 = 1; squared error (2 - 1)^2 = 1; CE = ln 4; with lambda = 0.5 the loss is ln 4 + 0.5.
    """
    logits = torch.log(torch.tensor([[0.25, 0.25, 0.25, 0.25], [0.5, 0.25, 0.125, 0.125]]))
    parts = _parts(logits, rows=[0], ids=[3], reads=[[1]], scores=[2.0])
    assert parts.expected_score.item() == pytest.approx(1.0)
    assert parts.squared_error.item() == pytest.approx(1.0)
    assert parts.score_mass.item() == pytest.approx(0.75)
    loss = step_shares(parts, StepTotals(ce_tokens=1, examples=1), dataclasses.replace(TRACT, score_loss_weight=0.5))["loss"]
    assert loss.item() == pytest.approx(math.log(4) + 0.5)


def test_squared_error_is_the_slow_reference_over_the_full_softmax() -> None:
    torch.manual_seed(0)
    logits = torch.randn(5, 7) * 4
    scores = [1.0, 2.0, 2.0]
    parts = _parts(logits, rows=[0], ids=[0], reads=[[4], [2], [0]], scores=scores)
    for example, row in enumerate((4, 2, 0)):
        weights = [math.exp(x) for x in logits[row].double().tolist()]
        predicted = sum(y * weights[token] for y, token in ((1, 0), (2, 1))) / sum(weights)
        assert parts.squared_error[example].item() == pytest.approx((scores[example] - predicted) ** 2, rel=1e-5)


def test_loss_divides_by_the_totals_of_the_step_not_of_the_micro_batch() -> None:
    torch.manual_seed(1)
    logits = torch.randn(4, 7)
    totals = StepTotals(ce_tokens=5, examples=3)
    first = _parts(logits, rows=[0, 1], ids=[2, 3], reads=[[1]], scores=[1.0])
    second = _parts(logits, rows=[1, 2, 3], ids=[4, 5, 6], reads=[[2], [3]], scores=[2.0, 1.0])
    both = _parts(logits, rows=[0, 1, 1, 2, 3], ids=[2, 3, 4, 5, 6], reads=[[1], [2], [3]], scores=[1.0, 2.0, 1.0])
    cut = step_shares(first, totals, TRACT)["loss"] + step_shares(second, totals, TRACT)["loss"]
    torch.testing.assert_close(cut, step_shares(both, totals, TRACT)["loss"])
    mean_ce = torch.nn.functional.cross_entropy(logits[[0, 1, 1, 2, 3]], torch.tensor([2, 3, 4, 5, 6]))
    torch.testing.assert_close(step_shares(both, totals, TRACT)["loss"], mean_ce + both.squared_error.mean())


def test_official_scaling_divides_lambda_by_the_micro_batch() -> None:
    logits = torch.randn(4, 7, generator=torch.Generator().manual_seed(2))
    parts = _parts(logits, rows=[0], ids=[2], reads=[[1], [2], [3], [0]], scores=[1.0, 2.0, 1.0, 2.0])
    totals = StepTotals(ce_tokens=1, examples=4)
    official = dataclasses.replace(TRACT, score_loss_scaling="micro_batch")
    ce = step_shares(parts, totals, dataclasses.replace(TRACT, score_loss_weight=0.0))["loss"]
    torch.testing.assert_close(step_shares(parts, totals, official)["loss"] - ce, parts.squared_error.sum() / 4**2)


def test_parts_are_float32_for_half_precision_logits() -> None:
    logits = torch.randn(3, 7).bfloat16()
    parts = _parts(logits, rows=[0, 1], ids=[2, 3], reads=[[2]], scores=[1.0])
    assert {parts.ce_sum.dtype, parts.squared_error.dtype, parts.expected_score.dtype} == {torch.float32}
    exact = torch.nn.functional.cross_entropy(logits[:2].float(), torch.tensor([2, 3]), reduction="sum")
    torch.testing.assert_close(parts.ce_sum, exact)


def test_no_tokens_under_cross_entropy() -> None:
    logits = torch.randn(1, 7, requires_grad=True)
    parts = _parts(logits, rows=[], ids=[], reads=[[0]], scores=[2.0])
    loss = step_shares(parts, StepTotals(ce_tokens=0, examples=1), dataclasses.replace(TRACT, ce_weight=0.0))["loss"]
    torch.testing.assert_close(loss, parts.squared_error[0])


@pytest.mark.parametrize(
    ("changes", "kinds"),
    [
        ({}, {TokenKind.COT, TokenKind.CUE, TokenKind.END}),
        ({"ce_on_score": True, "score_loss_weight": 0.0}, {TokenKind.COT, TokenKind.CUE, TokenKind.SCORE, TokenKind.END}),
        ({"ce_weight": 0.0}, set()),
    ],
)
def test_supervised_kinds(changes: dict[str, float], kinds: set[TokenKind]) -> None:
    assert dataclasses.replace(TRACT, **changes).supervised_kinds == kinds  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"score_loss_scaling": "batch"}, "score_loss_scaling: 'batch' is not one of step, micro_batch"),
        ({"score_loss_weight": -1.0}, "objective.lambda: -1.0"),
        ({"ce_weight": float("nan")}, "ce_weight: nan"),
        ({"ce_weight": 0.0, "score_loss_weight": 0.0}, "both 0"),
    ],
)
def test_bad_objectives_are_refused(changes: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(TRACT, **changes)  # type: ignore[arg-type]


LOSSES = """
import torch

def absolute_error(probabilities, grid_values, scores):
    return (scores - (probabilities * grid_values).sum(dim=-1)).abs()

def mean_of_all(probabilities, grid_values, scores):
    return absolute_error(probabilities, grid_values, scores).mean()

def constant(probabilities, grid_values, scores):
    return torch.ones_like(scores)

def of_two(probabilities, scores):
    return scores

def column(probabilities, grid_values, scores):
    return absolute_error(probabilities, grid_values, scores)[:, None]

def pinball(probabilities, grid_values, scores, q):
    missing = scores - (probabilities * grid_values).sum(dim=-1)
    return torch.maximum(q * missing, (q - 1) * missing)

class Pinball:
    def __init__(self, q):
        if not 0 < q < 1:
            raise ValueError("q is no share")
        self.q = q

    def __call__(self, probabilities, grid_values, scores):
        return pinball(probabilities, grid_values, scores, self.q)

not_a_function = 3
"""


@pytest.fixture
def my_losses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_losses.py").write_text(LOSSES)
    (tmp_path / "my_broken_losses.py").write_text("raise RuntimeError('no GPU')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_losses", raising=False)


def test_a_loss_of_ones_own_has_its_hand_computed_value(my_losses: None) -> None:
    """p(1) = 1/2 and p(2) = 1/4 where the truth is 2.5: y_hat = 1, the absolute error 1.5; the squared error stays a metric, 2.25."""
    logits = torch.log(torch.tensor([[0.25, 0.25, 0.25, 0.25], [0.5, 0.25, 0.125, 0.125]]))
    loss = score_loss_of("my_losses.absolute_error")
    parts = _parts(logits, rows=[0], ids=[3], reads=[[1]], scores=[2.5], loss=loss)
    assert parts.score_loss.item() == pytest.approx(1.5)
    assert parts.squared_error.item() == pytest.approx(2.25)
    weighted = dataclasses.replace(TRACT, score_loss="my_losses.absolute_error", score_loss_weight=0.5)
    assert step_shares(parts, StepTotals(ce_tokens=1, examples=1), weighted)["loss"].item() == pytest.approx(math.log(4) + 0.75)
    # Normalized, p(1) = 2/3 and p(2) = 1/3: y_hat = 4/3.
    of_grid = _parts(logits, rows=[0], ids=[3], reads=[[1]], scores=[2.5], loss=loss, normalize=True)
    assert of_grid.score_loss.item() == pytest.approx(2.5 - 4 / 3)
    assert of_grid.squared_error.item() == pytest.approx((2.5 - 4 / 3) ** 2)
    assert of_grid.score_mass.item() == pytest.approx(0.75)


def test_a_loss_of_ones_own_is_scaled_and_summed_as_the_squared_error(my_losses: None) -> None:
    logits = torch.randn(4, 7, generator=torch.Generator().manual_seed(2))
    loss = score_loss_of("my_losses.absolute_error")
    parts = _parts(logits, rows=[0], ids=[2], reads=[[1], [2], [3], [0]], scores=[1.0, 2.0, 1.0, 2.0], loss=loss)
    no_ce = dataclasses.replace(TRACT, ce_weight=0.0, score_loss_weight=3.0)
    totals = StepTotals(ce_tokens=1, examples=8)
    absolute = (torch.tensor([1.0, 2.0, 1.0, 2.0]) - parts.expected_score).abs().sum()
    torch.testing.assert_close(step_shares(parts, totals, no_ce)["loss"], 3 * absolute / 8)
    official = dataclasses.replace(no_ce, score_loss_scaling="micro_batch")
    torch.testing.assert_close(step_shares(parts, totals, official)["loss"], 3 * absolute / 8 / 4)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("huber", "objective.score_loss: 'huber' is unknown; squared_error or the dotted path of a function"),
        ("no_such_module_of_mine.huber", "'no_such_module_of_mine.huber' cannot be imported .*No module named"),
        ("my_losses.huber", "'my_losses.huber' cannot be imported .*huber"),
        ("my_losses.mean_of_all", r"must take .*return the loss of each example, \[M\]; on 3 examples it returned \[\]"),
        ("my_losses.column", r"on 3 examples it returned \[3, 1\]"),
        ("my_broken_losses.huber", "'my_broken_losses.huber' cannot be imported .RuntimeError: no GPU"),
        ("my_losses.of_two", "on 3 examples it raised TypeError"),
        ("my_losses.not_a_function", "on 3 examples it raised TypeError: 'int' object is not callable"),
        ("my_losses.constant", "finite losses with a gradient are accepted"),
        ("my_losses", "objective.score_loss: 'my_losses' is unknown"),
    ],
)
def test_what_is_no_score_loss_is_refused(name: str, message: str, my_losses: None) -> None:
    with pytest.raises(ConfigError, match=message):
        score_loss_of(name)


def test_a_loss_with_arguments_is_made_of_a_mapping(my_losses: None) -> None:
    """A class whose objects are called, and a function with ``_partial_``: q times what is missing, 1 - q times what is too much."""
    probabilities, values, scores = torch.tensor([[0.5, 0.5], [0.0, 1.0]]), torch.tensor([1.0, 2.0]), torch.tensor([2.5, 1.0])
    expected = {0.3: [0.3, 0.7], 0.9: [0.9, 0.1]}  # a point is missing, and there is a point too much
    for q, losses in expected.items():
        for kind in ({"_target_": "my_losses.Pinball"}, {"_target_": "my_losses.pinball", "_partial_": True}):
            loss = score_loss_of({**kind, "q": q})
            assert loss(probabilities, values, scores).tolist() == pytest.approx(losses)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"_target_": "my_losses.Pinball"}, r"my_losses.Pinball\(\) cannot be made .TypeError: .*missing 1 required .*argument: 'q'"),
        ({"_target_": "my_losses.Pinball", "q": 0.3, "p": 1}, r"Pinball\(q=0.3, p=1\) cannot be made .*unexpected keyword argument 'p'"),
        ({"_target_": "my_losses.Pinball", "q": 7}, "ValueError: q is no share"),
        ({"_target_": "my_losses.pinball", "q": 0.3}, "for a function that is the loss itself, set _partial_: true"),
        ({"_target_": "my_losses.pinball", "q": 0.3, "_partial_": "yes"}, "_partial_: found 'yes'; true or false is accepted"),
        ({"_target_": "my_losses.Pinbal", "q": 0.3}, "'my_losses.Pinbal' cannot be imported"),
        (
            {"_target_": "my_losses.Pinball", "q": 0.3, "_args_": [1]},
            r"score_loss\._args_: is not accepted; accepted are _target_, _partial_",
        ),
        ({"_target_": "Pinball", "q": 0.3}, "_target_: found 'Pinball'; the dotted path of a class or function is accepted"),
        ({"q": 0.3}, "_target_: found None; the dotted path"),
        ({"_target_": "my_losses.mean_of_all", "_partial_": True}, r"on 3 examples it returned \[\]"),
        ({"_target_": "builtins.dict"}, "'dict' object is not callable"),
        (None, "objective.score_loss: found None; squared_error or the dotted path"),
        (["squared_error"], "objective.score_loss: found .'squared_error'.; squared_error or"),
        ("squared_eror", r"'squared_eror' is unknown \(did you mean squared_error\?\)"),
    ],
)
def test_what_makes_no_score_loss_is_refused(given: Any, message: str, my_losses: None) -> None:
    with pytest.raises(ConfigError, match=message):
        score_loss_of(given)


def test_the_label_is_for_people() -> None:
    with_arguments = dataclasses.replace(TRACT, score_loss={"_target_": "mine.Pinball", "q": 0.3, "_partial_": True})
    assert with_arguments.score_loss_label == "mine.Pinball(q=0.3)"
    assert TRACT.score_loss_label == "squared error"
    assert dataclasses.replace(TRACT, score_loss="my_losses.huber_loss").score_loss_label == "my_losses.huber_loss"
