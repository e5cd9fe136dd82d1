"""The sequence layout: the one place where prompt, CoT, answer cue, score and end of turn become token ids.

    <chat-templated prompt> <CoT> <answer cue> <score token(s)> <end of turn>

Training, generation and scoring all take their ids from here. Everything that depends on the tokenizer (cue, score
tokens, end of turn, scaffold of the chat template) is found when the layout is built and stored beside the weights.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from functools import cached_property
from typing import Any

from tract.common.errors import ConfigError
from tract.text.chat_template import SYSTEM_MARK, TEMPLATE_DATE, Scaffold, find_end_of_turn, find_scaffold, fixed_clock
from tract.text.prompts import PromptText
from tract.text.score_grid import ScoreGrid, ScoreTrie
from tract.text.token_tree import TokenKind, TokenTree, TreeBuilder
from tract.text.tokenization import Span, TextEncoder, build_encoder

# Texts that may stand before the cue when its ids are looked up; a tokenizer must not merge one of them with the cue.
_ANCHORS = (".", "a", "a.", "word", "!", ")")


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
        variables = {**fixed_clock(tokenizer, template_date), **chat_template_kwargs}
        scaffold = find_scaffold(tokenizer, system, variables)
        return cls(tokenizer, scaffold, find_end_of_turn(tokenizer, variables), cue, grid)

    def prompt_ids(self, prompt: PromptText) -> list[int]:
        """Token ids of the chat-templated prompt; no control token stems from the prompt's text."""
        before, after = Span(self.scaffold.before, True), Span(self.scaffold.after, True)
        if self.scaffold.system_in_user_turn:
            system = f"{prompt.system}\n\n" if prompt.system else ""
            return self.encoder.encode([before, Span(system + prompt.user), after])
        head, _, tail = before.text.partition(SYSTEM_MARK)
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
        builder = TreeBuilder()
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
        builder = TreeBuilder()
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
            "scaffold": asdict(self.scaffold),
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
