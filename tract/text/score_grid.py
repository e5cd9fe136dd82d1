"""The score grid: which scores a judge can give, how they are written, and how their token sequences are told apart."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from tract.common.errors import ConfigError


@dataclass(frozen=True)
class ScoreGrid:
    """The scores that a judge can give (Y in the paper), in ascending order.

    Attributes:
        labels: the text of each score, exactly as it stands after the answer cue, e.g. ("1", "2", "3", "4", "5").

    Raises:
        ConfigError: if a label is no finite number, or the labels do not ascend.
    """

    labels: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self.labels) < 2:
            raise ConfigError(f"grid.labels: {list(self.labels)} holds fewer than two scores; list every score, e.g. ['1', '2', '3']")
        for label in self.labels:
            if label != label.strip() or not _is_number(label):
                raise ConfigError(f"grid.labels: {label!r} is not a number; labels are the scores as they are written, e.g. '4' or '4.5'")
        if any(a >= b for a, b in zip(self.values, self.values[1:], strict=False)):
            raise ConfigError(f"grid.labels: {list(self.labels)} do not ascend; list each score once, lowest first")

    @cached_property
    def values(self) -> tuple[float, ...]:
        """The scores in points."""
        return tuple(float(label) for label in self.labels)

    @property
    def lowest(self) -> float:
        """The lowest score, in points."""
        return self.values[0]

    @property
    def highest(self) -> float:
        """The highest score, in points."""
        return self.values[-1]

    def index(self, value: float) -> int:
        """The place of a score in the grid.

        Raises:
            ValueError: if no score of the grid equals ``value``.
        """
        try:
            return self.values.index(value)
        except ValueError:
            raise ValueError(f"score {value:g} is not on the grid {{{', '.join(self.labels)}}}") from None

    def nearest(self, value: float) -> int:
        """The place of the score that is nearest to ``value``; the lower of two that are equally near."""
        return min(range(len(self.values)), key=lambda k: abs(self.values[k] - value))


# The options of conf/grid: the scores of each.
OPTIONS = {
    "one_to_four": tuple(map(float, range(1, 5))),
    "one_to_five": tuple(map(float, range(1, 6))),
    "one_to_ten": tuple(map(float, range(1, 11))),
    "one_to_five_halves": tuple(half / 2 for half in range(2, 11)),
}
_MOST_LABELS = 21  # of a grid that is written out in a message


def grid_with(score: float, grid: ScoreGrid) -> str:
    """How to give a judge a grid that holds a score beside those of ``grid``: an option, else the labels written out."""
    wanted = {score, *grid.values}
    options = [name for name, values in OPTIONS.items() if wanted <= set(values)]
    if options:
        return f"{' or '.join(f'grid={name}' for name in options[:2])} has it"
    numbers = range(int(min(wanted)), int(max(wanted)) + 1)
    if all(value.is_integer() for value in wanted) and len(numbers) <= _MOST_LABELS:
        labels = ",".join(f'"{number}"' for number in numbers)
        return f"a grid of your own holds it with 'grid.labels=[{labels}]'"
    return "list it in grid.labels, or map means of several raters to target_score"


def grid_of(labels: Sequence[str], grid: ScoreGrid) -> str:
    """How to give a judge a grid with the scores that a rubric describes, which ``grid`` does not have as they are written."""
    values = {float(label) for label in labels}
    if values <= set(grid.values):
        return "write the scores as grid.labels does"
    exact = [name for name, option in OPTIONS.items() if values == set(option)]
    return f"grid={exact[0]} has the scores described" if exact else grid_with(max(values - set(grid.values)), grid)


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


@dataclass(frozen=True)
class ScoreTrie:
    """The token sequences of the grid's labels as a tree, cut where a label is decided.

    The probability of a label is the product of its tokens' probabilities along the tree. Walking stops at the first
    node below which only one label is left. Where a label ends on an inner node ("1" beside "10"), it gets what the
    labels that go on leave over: p("1") * (1 - p("0" | "1")). So the probabilities never sum to more than one.

    Attributes:
        paths: the inner nodes: token ids that lead from the end of the cue to each node; the first is the root, ().
        steps: for each label, the (node, token id) pairs whose probabilities are multiplied.
        stops: for each label, None, or (node, token ids): it ends on this node and none of these tokens follows.
    """

    paths: tuple[tuple[int, ...], ...]
    steps: tuple[tuple[tuple[int, int], ...], ...]
    stops: tuple[tuple[int, tuple[int, ...]] | None, ...]

    @classmethod
    def build(cls, labels: Sequence[str], token_ids: Sequence[Sequence[int]]) -> ScoreTrie:
        """Builds the tree of the labels' token ids, as they follow the answer cue.

        Raises:
            ConfigError: if two labels have the same token ids, or a label has none.
        """
        sequences = [tuple(ids) for ids in token_ids]
        for k, ids in enumerate(sequences):
            if not ids:
                raise ConfigError(f"grid.labels: {labels[k]!r} has no token after the answer cue; end prompt.cue in a blank or change it")
            if ids in sequences[:k]:
                other = labels[sequences.index(ids)]
                raise ConfigError(
                    f"grid.labels: {other!r} and {labels[k]!r} have the same token ids {list(ids)}; the tokenizer cannot tell them apart"
                )

        def below(path: tuple[int, ...]) -> list[tuple[int, ...]]:
            return [ids for ids in sequences if ids[: len(path)] == path]

        paths = sorted({ids[:n] for ids in sequences for n in range(len(ids)) if len(below(ids[:n])) > 1}, key=lambda p: (len(p), p))
        node_of = {path: node for node, path in enumerate(paths)}
        steps = tuple(tuple((node_of[ids[:n]], ids[n]) for n in range(len(ids)) if ids[:n] in node_of) for ids in sequences)
        stops = tuple(
            (node_of[ids], tuple(sorted({other[len(ids)] for other in below(ids) if other != ids}))) if ids in node_of else None
            for ids in sequences
        )
        return cls(paths=tuple(paths), steps=steps, stops=stops)
