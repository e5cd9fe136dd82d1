"""The grid's rules, and the trie: by hand, and against what its words say, on random grids and distributions."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from tract.common.errors import ConfigError
from tract.text.score_grid import OPTIONS, ScoreGrid, ScoreTrie, grid_with

# --- the grid


def test_values_are_the_labels_in_points() -> None:
    grid = ScoreGrid(("-1", "0", "1.5", "10"))
    assert grid.values == (-1.0, 0.0, 1.5, 10.0)
    assert (grid.lowest, grid.highest) == (-1.0, 10.0)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ((), "fewer than two scores"),
        (("1",), r"grid.labels: \['1'\] holds fewer than two scores"),
        (("1", "two"), "grid.labels: 'two' is not a number"),
        (("1", ""), "'' is not a number"),
        (("1", "nan"), "'nan' is not a number"),
        (("1", "inf"), "'inf' is not a number"),
        (("1", " 2"), "' 2' is not a number"),
        (("1", "2\n"), r"'2\\n' is not a number"),
        (("2", "1"), r"grid.labels: \['2', '1'\] do not ascend"),
        (("1", "1"), "do not ascend"),
        (("1", "1.0"), "do not ascend"),
        (("1", "2", "10", "9"), "do not ascend"),
    ],
)
def test_labels_that_are_no_grid_are_refused(labels: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ScoreGrid(labels)


def test_index_finds_scores_of_the_grid_alone() -> None:
    grid = ScoreGrid(("1", "1.5", "2"))
    assert [grid.index(value) for value in (1, 1.5, 2.0)] == [0, 1, 2]
    with pytest.raises(ValueError, match=r"score 1.25 is not on the grid \{1, 1.5, 2\}"):
        grid.index(1.25)


def test_nearest_takes_the_lower_of_two() -> None:
    grid = ScoreGrid(("1", "2", "3", "5"))
    assert [grid.nearest(value) for value in (-9, 1.4, 1.5, 1.6, 4, 4.1, 99)] == [0, 0, 0, 1, 2, 3, 3]


# --- the trie, by hand


def trie_of(*texts: str) -> ScoreTrie:
    """The trie of labels with one token per character."""
    return ScoreTrie.build(texts, [tuple(ord(c) for c in text) for text in texts])


def ids(text: str) -> tuple[int, ...]:
    return tuple(ord(c) for c in text)


ONE, TWO, FOUR, ZERO, DOT, FIVE = (ord(c) for c in "1240.5")


def test_one_token_scores_are_read_at_the_root() -> None:
    trie = trie_of("1", "2")
    assert trie == ScoreTrie(paths=((),), steps=(((0, ONE),), ((0, TWO),)), stops=(None, None))


def test_one_beside_ten_gets_what_ten_leaves() -> None:
    trie = trie_of("1", "2", "10")
    assert trie.paths == ((), (ONE,))
    assert trie.steps == (((0, ONE),), ((0, TWO),), ((0, ONE), (1, ZERO)))
    assert trie.stops == ((1, (ZERO,)), None, None)


def test_one_beside_one_and_a_half_is_decided_at_the_point() -> None:
    trie = trie_of("1", "1.5", "2", "2.5")
    assert trie.paths == ((), (ONE,), (TWO,))
    assert trie.steps[:2] == (((0, ONE),), ((0, ONE), (1, DOT)))  # "5" after "1." is certain to be meant, so it is not read
    assert trie.stops == ((1, (DOT,)), None, (2, (DOT,)), None)


def test_a_shared_prefix_is_walked_to_its_end() -> None:
    trie = trie_of("4.0", "4.5")
    assert trie.paths == ((), (FOUR,), (FOUR, DOT))
    assert trie.steps == (((0, FOUR), (1, DOT), (2, ZERO)), ((0, FOUR), (1, DOT), (2, FIVE)))
    assert trie.stops == (None, None)


def test_a_label_may_stop_above_several_others() -> None:
    trie = trie_of("1", "10", "100", "15")
    assert trie.paths == ((), (ONE,), (ONE, ZERO))
    assert trie.steps == (((0, ONE),), ((0, ONE), (1, ZERO)), ((0, ONE), (1, ZERO), (2, ZERO)), ((0, ONE), (1, FIVE)))
    assert trie.stops == ((1, (ZERO, FIVE)), (2, (ZERO,)), None, None)


def test_the_walk_stops_where_one_label_is_left() -> None:
    trie = trie_of("100", "200")
    assert trie.paths == ((),)
    assert trie.steps == (((0, ONE),), ((0, TWO),))


def test_labels_of_the_same_tokens_are_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"grid.labels: '1' and '3' have the same token ids \[7, 8\]; the tokenizer cannot tell them apart"
    ):
        ScoreTrie.build(("1", "2", "3"), ((7, 8), (7,), (7, 8)))


def test_a_label_without_tokens_is_refused() -> None:
    with pytest.raises(ConfigError, match="grid.labels: '2' has no token after the answer cue"):
        ScoreTrie.build(("1", "2"), ((7,), ()))


# --- the trie against its words

ALPHABET = "ab."


def random_language(seed: int) -> tuple[list[str], dict[str, dict[str, float]]]:
    """Some labels over a small alphabet, and p(next character | text so far), which may also be none of the alphabet."""
    rng = random.Random(seed)
    words = [a + b + c for a in ALPHABET for b in ("", *ALPHABET) for c in ("", *ALPHABET) if b or not c]
    labels = rng.sample(sorted(set(words)), rng.randint(2, 6))
    following = {}
    for text in ["", *words]:
        weights = [rng.random() ** 2 for _ in range(len(ALPHABET) + 1)]
        following[text] = {c: w / sum(weights) for c, w in zip(ALPHABET, weights, strict=False)}
    return labels, following


def by_trie(trie: ScoreTrie, following: dict[str, dict[str, float]]) -> list[float]:
    """Probabilities of the labels from steps and stops, as the docstring of ``ScoreTrie`` words it."""
    nodes = ["".join(map(chr, path)) for path in trie.paths]
    result = []
    for steps, stop in zip(trie.steps, trie.stops, strict=True):
        probability = 1.0
        for node, token in steps:
            probability *= following[nodes[node]][chr(token)]
        if stop is not None:
            node, tokens = stop
            probability *= 1 - sum(following[nodes[node]][chr(token)] for token in tokens)
        result.append(probability)
    return result


def by_strings(labels: Sequence[str], following: dict[str, dict[str, float]]) -> list[float]:
    """The same from whole texts: sums p over all texts of three characters; "?" is any character outside the alphabet.

    A text counts for a label as soon as its beginning leaves no other label possible, or, where the label is itself
    the beginning of others, if the text then goes on with none of those others' next characters.
    """

    def probability(text: str) -> float:
        result = 1.0
        for n, c in enumerate(text):
            if "?" in text[:n]:
                return result  # whatever follows
            known = following[text[:n]]
            result *= known[c] if c in known else 1 - sum(known.values())
        return result

    def winner(text: str) -> str | None:
        for n in range(len(text) + 1):
            possible = [label for label in labels if label.startswith(text[:n])]
            if len(possible) == 1:
                return possible[0]
            if not possible:  # left the tree: the label on the last node, if one ends there
                return text[: n - 1] if text[: n - 1] in labels else None
        return text if text in labels else None

    texts = {"?"} | {a + "?" for a in ALPHABET} | {a + b + c for a in ALPHABET for b in ALPHABET for c in ALPHABET + "?"}
    assert sum(probability(text) for text in texts) == pytest.approx(1)
    return [sum(probability(text) for text in texts if winner(text) == label) for label in labels]


@pytest.mark.parametrize("seed", range(200))
def test_probabilities_are_those_of_the_texts(seed: int) -> None:
    labels, following = random_language(seed)
    trie = trie_of(*labels)
    found = by_trie(trie, following)
    assert found == pytest.approx(by_strings(labels, following), abs=1e-12)
    assert sum(found) <= 1 + 1e-12
    assert min(found) >= -1e-12


@pytest.mark.parametrize("seed", range(20))
def test_every_node_decides_something_and_is_reached_over_its_parent(seed: int) -> None:
    labels, _ = random_language(seed)
    trie = trie_of(*labels)
    assert trie.paths[0] == ()
    assert len(set(trie.paths)) == len(trie.paths)
    for path in trie.paths:
        assert path[:-1] in trie.paths
        assert sum(ids(label)[: len(path)] == path for label in labels) > 1
    for label, steps in zip(labels, trie.steps, strict=True):
        assert [token for _, token in steps] == list(ids(label)[: len(steps)])
        assert [trie.paths[node] for node, _ in steps] == [ids(label)[:n] for n in range(len(steps))]


def test_the_options_of_conf_are_known_by_their_scores() -> None:
    files = (Path(__file__).resolve().parents[2] / "conf" / "grid").glob("*.yaml")
    found = {file.stem: ScoreGrid(tuple(yaml.safe_load(file.read_text())["labels"])).values for file in files}
    assert found == OPTIONS


@pytest.mark.parametrize(
    ("score", "hint"),
    [
        (4.5, "grid=one_to_five_halves has it"),
        (7, "grid=one_to_ten has it"),
        (0, """a grid of your own holds it with 'grid.labels=["0","1","2","3","4","5"]'"""),
        (100, "list it in grid.labels, or map means of several raters to target_score"),
        (4.2, "list it in grid.labels, or map means of several raters to target_score"),
    ],
)
def test_a_grid_that_holds_a_score(score: float, hint: str) -> None:
    assert grid_with(float(score), ScoreGrid(("1", "2", "3", "4", "5"))) == hint
