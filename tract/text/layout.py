"""The sequence layout: the one place where prompt, CoT, answer cue, score and end of turn become token ids.

    <chat-templated prompt> <CoT> <answer cue> <score token(s)> <end of turn>

Training, generation and scoring all take their ids from here. Everything that depends on the tokenizer (cue, score
tokens, end of turn, scaffold of the chat template) is found when the layout is built and stored beside the weights.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum
from functools import cached_property
from itertools import accumulate
from typing import Any

from jinja2 import TemplateError

from tract.common.errors import ConfigError
from tract.text.prompts import PromptText
from tract.text.score_grid import ScoreGrid, ScoreTrie
from tract.text.tokenization import Span, TextEncoder, build_encoder, control_tokens

# The day that chat templates print, in ISO's form, where no configuration names another.
TEMPLATE_DATE = "2024-07-26"
# Texts that may stand before the cue when its ids are looked up; a tokenizer must not merge one of them with the cue.
_ANCHORS = (".", "a", "a.", "word", "!", ")")


class TokenKind(IntEnum):
    """What a supervised token is."""

    COT = 0
    CUE = 1
    SCORE = 2
    END = 3


@dataclass(frozen=True, slots=True)
class Scaffold:
    """The chat template's text around the user turn of a single-turn conversation, up to where the judge begins."""

    before: str
    after: str
    system_in_user_turn: bool


@dataclass(frozen=True, slots=True)
class SegmentRun:
    """A stretch of tokens that follow each other on one path of a token tree.

    Attributes:
        start, end: its tokens, from ``start`` up to but not including ``end``.
        above: the (start, end) of the stretches before it on its path, in the order of the path.
    """

    start: int
    end: int
    ancestors: tuple[tuple[int, int], ...]

    def moved(self, offset: int) -> SegmentRun:
        """The same run where the tree begins at ``offset``."""
        return SegmentRun(self.start + offset, self.end + offset, tuple((start + offset, end + offset) for start, end in self.ancestors))


@dataclass(frozen=True, slots=True)
class PathRows:
    """The paths of packed token trees, each as a row of its own.

    Attributes:
        places: R lists, for each row the places in the packed row of its tokens, in the order of the path.
        found: [T] for each place in the packed row the (row, column) of its token; of a token on several paths, one of them.
    """

    places: list[list[int]]
    found: list[tuple[int, int]]

    @classmethod
    def of(cls, runs: Sequence[SegmentRun]) -> PathRows:
        """From the runs of a packed row, in ascending order: a path for each run that no other one goes on from in whole."""
        ancestors = {stretch for run in runs for stretch in run.ancestors}
        places: list[list[int]] = []
        found: dict[int, tuple[int, int]] = {}
        for run in runs:
            if (run.start, run.end) in ancestors:
                continue
            path = [place for start, end in (*run.ancestors, (run.start, run.end)) for place in range(start, end)]
            found |= {place: (len(places), column) for column, place in enumerate(path)}
            places.append(path)
        return cls(places, [found[place] for place in range(len(found))])


@dataclass(frozen=True, slots=True)
class TokenTree:
    r"""One prompt with one or more continuations as a tree of token segments, flattened.

    A token attends to the tokens before it in its own segment and to all tokens of the segments above. With a single
    continuation and a grid of one-token scores the tree is a chain, and that is plain causal attention.

        prompt -- CoT + cue -- score + end
              \            \- branch: other tokens whose successors decide between scores ("1" beside "10")
               \- CoT + cue -- ...

    Attributes:
        input_ids: [T] token ids.
        position_ids: [T] depth of each token: its distance in tokens from the start of the prompt along its own path.
        segment_ids: [T] the segment of each token.
        parents: [S] the segment above each segment; -1 for the prompt.
        target_from: [N] for each supervised token, the position whose logits predict it.
        target_ids: [N] its id. target_kinds: [N] its ``TokenKind``. target_continuations: [N] its continuation.
        score_reads: [C][K] for each continuation and each node of the score trie, the position whose logits are read.
        score_index: [C] the place of each continuation's score in the grid.
        is_rating: [C] whether a continuation is a score without a CoT where CoTs are learned, which the cross-entropy leaves out.
    """

    input_ids: list[int]
    position_ids: list[int]
    segment_ids: list[int]
    parents: list[int]
    target_from: list[int]
    target_ids: list[int]
    target_kinds: list[int]
    target_continuations: list[int]
    score_reads: list[list[int]]
    score_index: list[int]
    is_rating: list[bool]

    @property
    def is_chain(self) -> bool:
        """Whether plain causal attention is exact."""
        return len(self.runs) == 1

    @property
    def runs(self) -> list[SegmentRun]:
        """The tree cut into as few runs as can be: a segment that follows its parent goes on with the parent's run."""
        sizes = [0] * len(self.parents)
        for segment in self.segment_ids:
            sizes[segment] += 1
        ends = list(accumulate(sizes))
        runs: list[SegmentRun] = []
        for segment, end in enumerate(ends):
            if not sizes[segment]:
                continue
            ancestors = self._stretches_above(segment, sizes, ends)
            start = end - sizes[segment]
            if runs and ancestors and ancestors[-1][1] == start == runs[-1].end:
                runs[-1] = SegmentRun(runs[-1].start, end, runs[-1].ancestors)
            else:
                runs.append(SegmentRun(start, end, tuple(ancestors)))
        return runs

    def _stretches_above(self, segment: int, sizes: list[int], ends: list[int]) -> list[tuple[int, int]]:
        """The segments above one, in the order of the path; those that touch are one stretch."""
        path = []
        while (segment := self.parents[segment]) >= 0:
            if sizes[segment]:
                path.append((ends[segment] - sizes[segment], ends[segment]))
        stretches: list[tuple[int, int]] = []
        for start, end in reversed(path):
            if stretches and stretches[-1][1] == start:
                stretches[-1] = (stretches[-1][0], end)
            else:
                stretches.append((start, end))
        return stretches


class SequenceLayout:
    """Token ids of judge sequences for one tokenizer, chat template, answer cue and score grid.

    Attributes:
        scaffold: the chat template's text around the prompt.
        cue_ids: the answer cue's token ids, up to and including a token for the blank before the score, if it has its own.
        score_ids: for each score of the grid, its token ids after the cue.
        trie: the decisions between the scores.
        end_id: the token that ends the judge's turn.
    """

    def __init__(self, tokenizer: Any, scaffold: Scaffold, end_id: int, cue: str, grid: ScoreGrid) -> None:
        self.tokenizer = tokenizer
        self.scaffold = scaffold
        self.end_id = end_id
        self.cue = cue
        self.grid = grid
        self.encoder: TextEncoder = build_encoder(tokenizer)
        self.cue_ids, self.score_ids = _cue_and_score_ids(self.encoder, cue, grid, tokenizer.unk_token_id)
        self.trie = ScoreTrie.build(grid.labels, self.score_ids)

    @classmethod
    def build(
        cls,
        tokenizer: Any,
        *,
        system: bool,
        cue: str,
        grid: ScoreGrid,
        chat_template_kwargs: dict[str, Any],
        template_date: str = TEMPLATE_DATE,
    ) -> SequenceLayout:
        """Finds scaffold and end of turn from the tokenizer's chat template.

        Args:
            tokenizer: a Hugging Face tokenizer with a chat template.
            system: whether prompts have a system turn; it is folded into the user turn where the template has none.
            cue: the text between CoT and score.
            grid: the scores.
            chat_template_kwargs: further variables of the chat template, e.g. ``{"enable_thinking": False}``.
            template_date: the day that a chat template prints which asks for today's, as YYYY-MM-DD.

        Raises:
            ConfigError: if the chat template is missing or cannot show a user turn, or the cue or scores cannot be told apart.
        """
        if not tokenizer.chat_template:
            raise ConfigError(
                f"model.name_or_path: the tokenizer of {tokenizer.name_or_path!r} has no chat template; choose an instruction-tuned "
                "model or set model.chat_template to a Jinja file"
            )
        variables = {**_clock(tokenizer, template_date), **chat_template_kwargs}
        scaffold = _find_scaffold(tokenizer, system, variables)
        return cls(tokenizer, scaffold, _find_end_of_turn(tokenizer, variables), cue, grid)

    def prompt_ids(self, prompt: PromptText) -> list[int]:
        """Token ids of the chat-templated prompt; no control token stems from the prompt's text."""
        before, after = Span(self.scaffold.before, True), Span(self.scaffold.after, True)
        if self.scaffold.system_in_user_turn:
            system = f"{prompt.system}\n\n" if prompt.system else ""
            return self.encoder.encode([before, Span(system + prompt.user), after])
        head, _, tail = before.text.partition(_SYSTEM_MARK)
        return self.encoder.encode([Span(head, True), Span(prompt.system), Span(tail, True), Span(prompt.user), after])

    def cot_ids(self, cot: str) -> list[int]:
        """Token ids of a CoT as it follows the prompt; no control token stems from its text."""
        return self.encoder.encode([Span(cot)]) if cot else []

    @cached_property
    def max_tail_tokens(self) -> int:
        """The most tokens that cue, score, end of turn and the branches of the score trie add to a continuation."""
        return len(self.cue_ids) + max(len(ids) for ids in self.score_ids) + 1 + self.branch_tokens

    @cached_property
    def branch_tokens(self) -> int:
        """The most tokens of a continuation's branches of the score trie."""
        return sum(len(path) for path in self.trie.paths)

    @cached_property
    def branches(self) -> int:
        """The most branches of the score trie of a continuation."""
        paths = self.trie.paths
        return sum(bool(path) and not any(other[: len(path)] == path != other for other in paths) for path in paths)

    @cached_property
    def score_block(self) -> TokenTree:
        """Cue and branches of the score trie, as a tree that is appended where a CoT ends; ``score_reads`` holds one row of reads."""
        builder = _TreeBuilder()
        cue = builder.add_segment(-1, list(self.cue_ids))
        builder.read_scores(self.trie.paths, cue, cue, ())
        return builder.out

    @cached_property
    def fingerprint(self) -> str:
        """Changes when the layout can give other token ids: tokenizer, chat template, cue or grid."""
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        vocabulary = backend.to_str() if backend is not None else json.dumps(sorted(self.tokenizer.get_vocab().items()))
        parts = [self.to_dict(), type(self.tokenizer).__name__, sorted(self.encoder.control_ids), vocabulary]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def tree(self, prompt_ids: Sequence[int], continuations: Sequence[tuple[Sequence[int], int]], ratings: Sequence[int] = ()) -> TokenTree:
        """The token tree of a prompt and its continuations, those of ``ratings`` after the others.

        Args:
            prompt_ids: token ids of the chat-templated prompt.
            continuations: (token ids of the CoT, place of the score in the grid) pairs; an empty CoT lets the cue follow
                the prompt directly (regression-only).
            ratings: places in the grid of scores without a CoT, where CoTs are learned; the cue follows the prompt directly.
        """
        builder = _TreeBuilder()
        prompt = builder.add_segment(-1, list(prompt_ids))
        builder.out.is_rating.extend([False] * len(continuations) + [True] * len(ratings))
        no_cot: Sequence[int] = ()
        for number, (cot, score) in enumerate([*continuations, *((no_cot, score) for score in ratings)]):
            builder.continuation = number
            stem = builder.add_segment(prompt, [*cot, *self.cue_ids], [TokenKind.COT] * len(cot) + [TokenKind.CUE] * len(self.cue_ids))
            ids = self.score_ids[score]
            leaf = builder.add_segment(stem, [*ids, self.end_id], [TokenKind.SCORE] * len(ids) + [TokenKind.END])
            builder.read_scores(self.trie.paths, stem, leaf, ids)
            builder.out.score_index.append(score)
        return builder.out

    def to_dict(self) -> dict[str, Any]:
        """What is saved beside the weights; ``from_dict`` gives the same layout back."""
        return {
            "scaffold": {
                "before": self.scaffold.before,
                "after": self.scaffold.after,
                "system_in_user_turn": self.scaffold.system_in_user_turn,
            },
            "end_id": self.end_id,
            "cue": self.cue,
            "cue_ids": list(self.cue_ids),
            "grid": list(self.grid.labels),
            "score_ids": [list(ids) for ids in self.score_ids],
        }

    @classmethod
    def from_dict(cls, tokenizer: Any, saved: dict[str, Any]) -> SequenceLayout:
        """The saved layout, checked against the tokenizer.

        Raises:
            ConfigError: if the tokenizer gives other ids for the cue or the scores than those saved.
        """
        layout = cls(tokenizer, Scaffold(**saved["scaffold"]), saved["end_id"], saved["cue"], ScoreGrid(tuple(saved["grid"])))
        found = layout.to_dict()
        for key in ("cue_ids", "score_ids"):
            if found[key] != saved[key]:
                raise ConfigError(
                    f"layout.json: {key} {saved[key]} were saved but the tokenizer gives {found[key]}; restore the run's own tokenizer"
                )
        return layout


class _TreeBuilder:
    """Appends segments to a token tree and notes which position predicts what."""

    def __init__(self) -> None:
        self.out = TokenTree([], [], [], [], [], [], [], [], [], [], [])
        self.continuation = 0
        self._last: list[int] = []  # the last position of each segment
        self._first: list[int] = []

    def add_segment(self, parent: int, ids: list[int], kinds: list[TokenKind] | None = None) -> int:
        """Appends a segment below ``parent``; its tokens are supervised if ``kinds`` says what they are."""
        out, segment = self.out, len(self.out.parents)
        before = self._last[parent] if parent >= 0 else -1
        depth = out.position_ids[before] + 1 if before >= 0 else 0
        start = len(out.input_ids)
        out.parents.append(parent)
        self._first.append(start)
        self._last.append(start + len(ids) - 1 if ids else before)
        out.input_ids.extend(ids)
        out.position_ids.extend(range(depth, depth + len(ids)))
        out.segment_ids.extend([segment] * len(ids))
        if kinds:
            out.target_from.extend([before, *range(start, start + len(ids) - 1)][: len(ids)])
            out.target_ids.extend(ids)
            out.target_kinds.extend(int(kind) for kind in kinds)
            out.target_continuations.extend([self.continuation] * len(ids))
        return segment

    def read_scores(self, paths: Sequence[tuple[int, ...]], stem: int, leaf: int, score: tuple[int, ...]) -> None:
        """Notes where each node of the score trie is read; adds branches for nodes that the true score does not pass."""
        place = {score[:n]: self._first[leaf] + n - 1 for n in range(1, len(score) + 1)}
        place[()] = self._last[stem]
        for path in sorted((p for p in paths if p not in place), key=len, reverse=True):
            if path in place:  # lies on a longer branch
                continue
            start = self._first[self.add_segment(stem, list(path))]
            for n in range(1, len(path) + 1):
                place.setdefault(path[:n], start + n - 1)
        self.out.score_reads.append([place[path] for path in paths])


# What rendering raises: the template's own raise_exception, and faults in its expressions.
_TEMPLATE_ERRORS = (TemplateError, TypeError, ValueError, KeyError, AttributeError)
_SYSTEM_MARK = "\ue000tract-system\ue001"


def _clock(tokenizer: Any, template_date: str) -> dict[str, Any]:
    """The ``strftime_now`` of a chat template that uses it, at the start of a fixed day.

    transformers gives templates one that reads the clock; a variable of this name goes before it. A scaffold with today's date would
    differ between the stages of a run that takes more than a day.
    """
    if "strftime_now" not in str(tokenizer.chat_template):
        return {}
    return {"strftime_now": datetime.fromisoformat(template_date).strftime}


def _find_scaffold(tokenizer: Any, system: bool, kwargs: dict[str, Any]) -> Scaffold:
    """Renders the chat template with marks in place of the texts and cuts it there."""
    mark = f"tract-user-{secrets.token_hex(8)}"

    def render(messages: list[dict[str, str]]) -> str:
        return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, **kwargs))

    user = {"role": "user", "content": mark}
    if system:
        try:
            text = render([{"role": "system", "content": _SYSTEM_MARK}, user])
            # A template that merges the system text into the user turn by itself keeps both marks.
            if text.count(_SYSTEM_MARK) == 1 and text.count(mark) == 1 and text.index(_SYSTEM_MARK) < text.index(mark):
                before, after = text.split(mark)
                return Scaffold(before, after, system_in_user_turn=False)
        except _TEMPLATE_ERRORS:
            pass  # the template knows no system role
    try:
        text = render([user])
    except _TEMPLATE_ERRORS as error:
        raise ConfigError(f"model.chat_template: it cannot render a user turn: {error}") from error
    if text.count(mark) != 1:
        raise ConfigError(f"model.chat_template: it shows the user turn {text.count(mark)} times instead of once; fix the template")
    before, after = text.split(mark)
    return Scaffold(before, after, system_in_user_turn=True)


def _find_end_of_turn(tokenizer: Any, kwargs: dict[str, Any]) -> int:
    """The first control token that the chat template writes after an assistant turn, else the end-of-sequence token."""
    mark = f"tract-assistant-{secrets.token_hex(8)}"
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": mark}]
    try:
        text = str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=False, **kwargs))
    except _TEMPLATE_ERRORS as error:
        raise ConfigError(f"model.chat_template: it cannot render an assistant turn: {error}") from error
    if mark not in text:
        raise ConfigError("model.chat_template: it does not show the assistant turn, so what ends it is unknown; fix the template")
    tail = text.rpartition(mark)[2]
    controls = control_tokens(tokenizer)
    present = [(tail.index(content), -len(content), token_id) for content, token_id in controls.items() if content and content in tail]
    if present:
        return min(present)[2]
    if tokenizer.eos_token_id is None:
        raise ConfigError(
            f"model.chat_template: no token ends the assistant's turn, and {tokenizer.name_or_path!r} has no end-of-sequence token"
        )
    return int(tokenizer.eos_token_id)


def _cue_and_score_ids(
    encoder: TextEncoder, cue: str, grid: ScoreGrid, unk_id: int | None
) -> tuple[tuple[int, ...], tuple[tuple[int, ...], ...]]:
    """Ids of the cue and of each score, as they stand in running text.

    The cue's ids are what the cue alone and the cue before any score have in common; so a tokenizer that joins the
    blank with the digit (" 3") gives the blank to the score, and one with a token for the blank leaves it to the cue.
    """
    for anchor in _ANCHORS:
        head = encoder.encode([Span(anchor)])
        texts = [encoder.encode([Span(anchor + cue + label)]) for label in ("", *grid.labels)]
        if all(ids[: len(head)] == head for ids in texts):
            break
    else:
        raise ConfigError(f"prompt.cue: the tokenizer merges {cue!r} with the text before it; begin the cue with a blank")
    tails = [ids[len(head) :] for ids in texts]
    shared = 0
    while all(len(ids) > shared for ids in tails) and len({ids[shared] for ids in tails}) == 1:
        shared += 1
    cue_ids, score_ids = tuple(tails[0][:shared]), tuple(tuple(ids[shared:]) for ids in tails[1:])
    if not cue_ids:
        raise ConfigError(f"prompt.cue: {cue!r} has no token of its own before the score; use a longer cue")
    if unk_id is not None and any(unk_id in ids for ids in (cue_ids, *score_ids)):
        raise ConfigError(
            f"prompt.cue: the tokenizer cannot write {cue!r} with the scores {', '.join(grid.labels)} (unknown token); change cue or grid"
        )
    return cue_ids, score_ids
