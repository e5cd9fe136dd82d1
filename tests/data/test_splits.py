import random
from itertools import combinations

import pytest

from tract.common.errors import ConfigError, DataError
from tract.config.vocabulary import SPLITS
from tract.data.splits import split_questions


def split(questions, fixed=None, seed=1, val=0.0, test=0.0):
    return split_questions(questions, fixed or [None] * len(questions), seed=seed, val_fraction=val, test_fraction=test)


def questions_of(indices, questions):
    return {name: {questions[index] for index in members} for name, members in indices.items()}


@pytest.mark.parametrize("seed", range(20))
def test_no_question_is_in_two_splits_and_none_is_lost(seed):
    rng = random.Random(seed)
    questions = [f"q{rng.randrange(40)}" for _ in range(200)]
    own = {f"q{number}": rng.choice([None, None, *SPLITS]) for number in range(40)}
    fixed = [own[question] if rng.random() < 0.9 else None for question in questions]
    indices = split(questions, fixed, seed, val=rng.random() * 0.4, test=rng.random() * 0.4)
    assert list(indices) == list(SPLITS)
    assert sorted(index for members in indices.values() for index in members) == list(range(200))
    assert all(members == sorted(members) for members in indices.values())
    assert not any(a & b for a, b in combinations(questions_of(indices, questions).values(), 2))
    for index, name in enumerate(fixed):
        assert name is None or index in indices[name]


def test_order_and_number_of_examples_do_not_matter():
    questions = [f"q{number}" for number in range(50)]
    shuffled = random.Random(3).sample(questions * 3, 150)
    a, b = split(questions, val=0.2, test=0.1), split(shuffled, val=0.2, test=0.1)
    assert questions_of(a, questions) == questions_of(b, shuffled)
    assert [len(a[name]) for name in SPLITS] == [35, 10, 5, 0]


def test_another_seed_gives_another_split_and_the_first_is_pinned():
    questions = [f"q{number}" for number in range(8)]
    assert split(questions, seed=1, val=0.25)["val"] != split(questions, seed=2, val=0.25)["val"]
    # The questions with the two lowest sha256("1:<question>"): pinned, because finished runs were split by them.
    assert split(questions, seed=1, val=0.25)["val"] == [3, 7]


@pytest.mark.parametrize(
    ("n_questions", "val", "test", "sizes"),
    [
        (2, 0.01, 0.0, (1, 1, 0)),
        (3, 0.01, 0.01, (1, 1, 1)),
        (10, 0.0, 0.0, (10, 0, 0)),
        (10, 0.26, 0.14, (6, 3, 1)),
        (1, 0.0, 0.0, (1, 0, 0)),
        (0, 0.1, 0.1, (0, 0, 0)),
    ],
)
def test_sizes(n_questions, val, test, sizes):
    indices = split([str(number) for number in range(n_questions)], val=val, test=test)
    assert tuple(len(indices[name]) for name in ("train", "val", "test")) == sizes


def test_fixed_splits_win_and_take_the_whole_question_along():
    questions = ["a", "a", "b", "c", "d"]
    indices = split(questions, ["ood", None, "val", None, None], val=0.5)
    assert indices["ood"] == [0, 1]
    assert 2 in indices["val"]
    assert len(indices["val"]) == 2  # b, and half of c and d
    assert len(indices["train"]) == 1


def test_a_benchmark_whose_splits_are_all_fixed_needs_no_training_question():
    assert split(["a", "b"], ["test", "test"], val=0.5)["test"] == [0, 1]


def test_a_fixed_training_question_lets_all_others_be_drawn():
    indices = split(["a", "b"], ["train", None], val=0.5)
    assert (indices["train"], indices["val"]) == ([0], [1])


@pytest.mark.parametrize(
    ("questions", "fixed", "val", "test", "error", "match"),
    [
        (["a"], None, 0.1, 0.0, ConfigError, r"data\.val_fraction: 0\.1 .* leaves no question for training: 1 questions, 1 for validation"),
        (["a", "b"], None, 0.1, 0.1, ConfigError, r"data\.val_fraction.* 2 questions"),
        (["a", "b"], ["ood", None], 0.1, 0.0, ConfigError, r"data\.val_fraction.* 1 questions"),
        (["a"], None, -0.1, 0.0, ConfigError, r"data\.val_fraction: -0\.1"),
        (["a"], None, float("nan"), 0.0, ConfigError, r"data\.val_fraction: nan"),
        (["a"], None, 0.0, 1.0, ConfigError, r"data\.test_fraction: 1 "),
        (["a"], None, 0.5, 0.5, ConfigError, r"sum to 1 or more"),
        (["a", "a"], ["train", "test"], 0.0, 0.0, DataError, r"question a: .*'train' and 'test'"),
        (["a"], ["validation"], 0.0, 0.0, DataError, r"question a: .*'validation'; train, val, test, ood"),
    ],
)
def test_errors(questions, fixed, val, test, error, match):
    with pytest.raises(error, match=match):
        split(questions, fixed, val=val, test=test)
