"""Shows sequences as the model sees them: which tokens there are, of which kind, and which are supervised and how."""

from __future__ import annotations

from dataclasses import dataclass

from tract.data.batches import TrainingItem
from tract.method.objective import Objective
from tract.text.layout import SequenceLayout
from tract.text.token_tree import TokenKind, TokenTree

PROMPT, BRANCH = "prompt", "branch"


@dataclass(frozen=True, slots=True)
class TokenLine:
    """A token of a tree.

    Attributes:
        position: in the tree. token_id: its id. kind: the name of its ``TokenKind``, "prompt", or "branch" of the score trie.
        trained_by: what trains it: "cross-entropy", the loss of the score (e.g. "squared error"), both, or "nothing".
        read: whether the score distribution is read from the logits at this position, i.e. it predicts a part of the score.
    """

    position: int
    token_id: int
    kind: str
    trained_by: str
    read: bool


def token_lines(tree: TokenTree, objective: Objective) -> list[TokenLine]:
    """Each token of a tree with a single continuation, in the order of the tree."""
    assert len(tree.score_index) == 1, "of several continuations, targets do not follow each other"
    kinds = [TokenKind(kind) for kind in tree.target_kinds]
    first = tree.segment_ids.index(1)  # the continuation's tokens follow the prompt, branches follow them
    reads = set(tree.score_reads[0])
    lines = []
    for position, token_id in enumerate(tree.input_ids):
        place = position - first
        kind = kinds[place] if 0 <= place < len(kinds) else None
        name = PROMPT if place < 0 else BRANCH if kind is None else kind.name.lower()
        trained = "nothing" if kind is None else _trained_by(kind, objective, is_rating=tree.is_rating[0])
        lines.append(TokenLine(position, token_id, name, trained, position in reads))
    return lines


def preview(item: TrainingItem, layout: SequenceLayout, objective: Objective) -> str:
    """A training item's prompt as text, then the tokens of its first continuation with their kinds and what trains them.

    Those of its first rating follow, if it has one. A * marks the positions where the score distribution is read.
    """
    ratings = f", {len(item.ratings)} rating(s) without a CoT" if item.ratings else ""
    counts = f"{len(item.prompt_ids)} prompt tokens, {len(item.continuations)} continuation(s){ratings}, target {item.target:g}"
    rows = [f"item {item.id}: {counts}", "", layout.tokenizer.decode(list(item.prompt_ids))]
    if item.continuations:
        rows += ["", *_table(layout.tree(item.prompt_ids, item.continuations[:1]), layout, objective)]
    if item.ratings:
        rows += ["", "a rating without a CoT, after the same prompt"]
        rows += _table(layout.tree(item.prompt_ids, [], item.ratings[:1]), layout, objective)
    return "\n".join(rows) + "\n"


def _table(tree: TokenTree, layout: SequenceLayout, objective: Objective) -> list[str]:
    """A header, and a line for each token after the prompt of a tree with a single continuation."""
    lines = token_lines(tree, objective)
    rows = ["predicted from | token | kind | trained by"]
    for position, line in zip(tree.target_from, (line for line in lines if line.kind not in (PROMPT, BRANCH)), strict=True):
        mark = "*" if lines[position].read else " "
        rows.append(f"{position:6d}{mark} | {layout.tokenizer.decode([line.token_id])!r} | {line.kind} | {line.trained_by}")
    return rows


def _trained_by(kind: TokenKind, objective: Objective, *, is_rating: bool) -> str:
    terms = ["cross-entropy"] if kind in objective.supervised_kinds and not is_rating else []
    if kind == TokenKind.SCORE and objective.score_loss_weight > 0:
        terms.append(objective.score_loss_label)
    return " and ".join(terms) or "nothing"
