"""Shows one training item as the model sees it: its text, and which tokens are supervised and how."""

from __future__ import annotations

from tract.data.batches import Item
from tract.layout import SequenceLayout, TokenKind


def preview(item: Item, layout: SequenceLayout) -> str:
    """The item's prompt as text, then each supervised token with its kind; a * marks where the score is read."""
    tree = layout.tree(item.prompt_ids, item.continuations[:1])
    decode = layout.tokenizer.decode
    rows = [f"item {item.id}: {len(item.prompt_ids)} prompt tokens, {len(item.continuations)} continuation(s), target {item.target:g}"]
    rows += ["", decode(list(item.prompt_ids)), "", "predicted from | token | kind | trained by"]
    reads = set(tree.score_reads[0])
    for position, token, kind in zip(tree.target_from, tree.target_ids, tree.target_kinds, strict=True):
        mark = "*" if position in reads else " "
        by = "squared error" if kind == TokenKind.SCORE else "cross-entropy"
        rows.append(f"{position:6d}{mark} | {decode([token])!r} | {TokenKind(kind).name.lower()} | {by}")
    return "\n".join(rows) + "\n"
