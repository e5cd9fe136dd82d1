"""Shows sequences as the model sees them: which tokens there are, of which kind, and which are supervised and how."""

from __future__ import annotations

from dataclasses import dataclass

from tract.data.batches import Item
from tract.layout import SequenceLayout, TokenKind, TokenTree
from tract.objective import Objective

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
        trained = "nothing" if kind is None else _trained_by(kind, objective)
        lines.append(TokenLine(position, token_id, name, trained, position in reads))
    return lines


def preview(item: Item, layout: SequenceLayout, objective: Objective) -> str:
    """A training item's prompt as text, then the tokens of its first continuation with their kinds and what trains them.

    A * marks the positions where the score distribution is read.
    """
    tree = layout.tree(item.prompt_ids, item.continuations[:1])
    decode = layout.tokenizer.decode
    rows = [f"item {item.id}: {len(item.prompt_ids)} prompt tokens, {len(item.continuations)} continuation(s), target {item.target:g}"]
    rows += ["", decode(list(item.prompt_ids)), "", "predicted from | token | kind | trained by"]
    lines = token_lines(tree, objective)
    for position, line in zip(tree.target_from, (line for line in lines if line.kind not in (PROMPT, BRANCH)), strict=True):
        mark = "*" if lines[position].read else " "
        rows.append(f"{position:6d}{mark} | {decode([line.token_id])!r} | {line.kind} | {line.trained_by}")
    return "\n".join(rows) + "\n"


def _trained_by(kind: TokenKind, objective: Objective) -> str:
    terms = ["cross-entropy"] if kind in objective.supervised_kinds else []
    if kind == TokenKind.SCORE and objective.score_loss_weight > 0:
        terms.append(objective.score_loss_label)
    return " and ".join(terms) or "nothing"
