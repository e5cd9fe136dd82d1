"""Score predictors against slow references over the full softmax."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from tract.method.predictors import expected_score, log_normalizer, score_probabilities
from tract.text.score_grid import ScoreTrie

VOCABULARY = 11


def _softmax(row: torch.Tensor) -> list[float]:
    """Softmax in float64 Python numbers."""
    values = [math.exp(x) for x in row.double().tolist()]
    return [value / sum(values) for value in values]


def test_single_token_scores_are_the_full_softmax() -> None:
    torch.manual_seed(0)
    logits = torch.randn(6, VOCABULARY) * 3
    trie = ScoreTrie.build("12345", [[2], [3], [4], [5], [6]])
    reads = torch.tensor([[5], [0]])
    found = score_probabilities(logits, log_normalizer(logits), reads, trie)
    for example, row in enumerate((5, 0)):
        reference = _softmax(logits[row])
        torch.testing.assert_close(found[example], torch.tensor([reference[token] for token in range(2, 7)]))


def test_a_label_on_which_another_goes_on_gets_what_is_left() -> None:
    """Grid 1, 2, 10 with "10" = tokens of "1" and "0": p(1) = p("1") (1 - p("0" | "1"))."""
    torch.manual_seed(1)
    logits = torch.randn(2, VOCABULARY)
    trie = ScoreTrie.build(("1", "2", "10"), [[1], [2], [1, 0]])
    root, after_one = _softmax(logits[0]), _softmax(logits[1])
    found = score_probabilities(logits, log_normalizer(logits), torch.tensor([[0, 1]]), trie)[0]
    torch.testing.assert_close(found, torch.tensor([root[1] * (1 - after_one[0]), root[2], root[1] * after_one[0]]))
    assert found.sum() <= 1


def test_probabilities_of_any_trie_are_those_of_string_events() -> None:
    """Halves 1 .. 3 with three-token labels: the walk stops where the label is decided."""
    torch.manual_seed(2)
    labels = ("1", "1.5", "2", "2.5", "3")
    ids = [[1], [1, 9, 5], [2], [2, 9, 5], [3]]
    trie = ScoreTrie.build(labels, ids)
    assert trie.paths == ((), (1,), (2,))
    logits = torch.randn(3, VOCABULARY)
    p = {path: _softmax(logits[node]) for node, path in enumerate(trie.paths)}
    reference = [p[()][1] * (1 - p[1,][9]), p[()][1] * p[1,][9], p[()][2] * (1 - p[2,][9]), p[()][2] * p[2,][9], p[()][3]]
    found = score_probabilities(logits, log_normalizer(logits), torch.tensor([[0, 1, 2]]), trie)[0]
    torch.testing.assert_close(found, torch.tensor(reference))


def test_probabilities_are_float32_for_half_precision_logits() -> None:
    logits = torch.randn(3, VOCABULARY).bfloat16()
    trie = ScoreTrie.build("12", [[1], [2]])
    found = score_probabilities(logits, log_normalizer(logits), torch.tensor([[2]]), trie)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found[0], torch.softmax(logits[2].float(), -1)[1:3])


@pytest.mark.parametrize("normalize", [False, True])
def test_expected_score(normalize: bool) -> None:
    probabilities = torch.tensor([[0.1, 0.2, 0.5]])
    total = 0.1 * 1 + 0.2 * 2 + 0.5 * 3
    expected = total / 0.8 if normalize else total
    assert expected_score(probabilities, torch.tensor([1.0, 2.0, 3.0]), normalize=normalize).item() == pytest.approx(expected)


def test_expected_score_of_no_mass_is_finite() -> None:
    assert expected_score(torch.zeros(1, 3), torch.tensor([1.0, 2.0, 3.0]), normalize=True).item() == 0.0


def test_expected_score_refuses_another_grid() -> None:
    with pytest.raises(ValueError, match="3 probabilities for 2 scores"):
        expected_score(torch.zeros(1, 3), torch.ones(2), normalize=False)


def test_a_reading_in_inference_mode_leaves_nothing_that_hinders_training() -> None:
    """A process that samples first and trains then, as when a pipeline goes on after a kill."""
    trie = ScoreTrie.build("123", [[71], [72], [73]])  # no other test's, since its tensors are kept
    reads = torch.tensor([[0]])
    with torch.inference_mode():
        score_probabilities(torch.zeros(1, 80), torch.zeros(1), reads, trie)
    logits = torch.zeros(1, 80, requires_grad=True)
    score_probabilities(logits, log_normalizer(logits), reads, trie).sum().backward()
    assert logits.grad is not None


def test_gradient_is_that_of_the_formula() -> None:
    """Against finite differences, multi-token grid included."""
    torch.manual_seed(3)
    trie = ScoreTrie.build(("1", "2", "10"), [[1], [2], [1, 0]])
    values = torch.tensor([1.0, 2.0, 10.0])
    logits = torch.randn(2, 4, requires_grad=True)

    def predicted(x: torch.Tensor) -> torch.Tensor:
        return expected_score(score_probabilities(x, log_normalizer(x), torch.tensor([[0, 1]]), trie), values, normalize=False).sum()

    predicted(logits).backward()
    step = 1e-3
    for row, column in itertools.product(range(2), range(4)):
        shift = torch.zeros_like(logits)
        shift[row, column] = step
        difference = (predicted(logits.detach() + shift) - predicted(logits.detach() - shift)) / (2 * step)
        assert logits.grad is not None
        assert logits.grad[row, column].item() == pytest.approx(difference.item(), abs=2e-3)
