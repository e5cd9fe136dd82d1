"""Shows one training item as the model sees it: its text, and which tokens are supervised and how."""

from __future__ import annotations

from tract.data.batches import Item
from tract.layout import SequenceLayout, TokenKind
from tract.objective import Objective


def preview(item: Item, layout: SequenceLayout, objective: Objective) -> str:
    """The item's prompt as text, then the tokens of its first continuation with their kinds and what trains them.

    A * marks the positions where the score distribution is read.
    """
    tree = layout.tree(item.prompt_ids, item.continuations[:1])
    decode = layout.tokenizer.decode
    rows = [f"item {item.id}: {len(item.prompt_ids)} prompt tokens, {len(item.continuations)} continuation(s), target {item.target:g}"]
    rows += ["", decode(list(item.prompt_ids)), "", "predicted from | token | kind | trained by"]
    reads = set(tree.score_reads[0])
    for position, token, kind in zip(tree.target_from, tree.target_ids, tree.target_kinds, strict=True):
        mark = "*" if position in reads else " "
        rows.append(
            f"{position:6d}{mark} | {decode([token])!r} | {TokenKind(kind).name.lower()} | {_trained_by(TokenKind(kind), objective)}"
        )
    return "\n".join(rows) + "\n"


def _trained_by(kind: TokenKind, objective: Objective) -> str:
    terms = ["cross-entropy"] if kind in objective.supervised_kinds else []
    if kind == TokenKind.SCORE and objective.score_loss_weight > 0:
        terms.append("squared error")
    return " and ".join(terms) or "nothing"
