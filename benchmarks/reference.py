"""The plain way to train and run a TRACT judge, to compare with: stock transformers, padded batches, logits everywhere.

Written to be read, not to be slow on purpose: it is what one writes with a Hugging Face model, a collator that pads, and
``generate``. It computes the same losses and scores as the project (tests/test_performance.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tract.data.batches import TrainingItem
from tract.text.layout import SequenceLayout
from tract.text.token_tree import TokenKind

Example = tuple[Sequence[int], Sequence[int], int]  # prompt, CoT, place of the score


def examples_of(items: Sequence[TrainingItem]) -> list[Example]:
    """Every (prompt, CoT, score) by itself."""
    return [(item.prompt_ids, cot, score) for item in items for cot, score in item.continuations]


def loss_shares(model: nn.Module, layout: SequenceLayout, batch: Sequence[Example], pad_id: int, ce_tokens: int, examples: int) -> Tensor:
    """A padded batch's share of the step's loss: CE over CoT, cue and end of turn, and the squared error of the expected score.

    Args:
        batch: the examples. ce_tokens, examples: of the whole step. Scores of one token each.
    """
    trees = [layout.tree(prompt, [(cot, score)]) for prompt, cot, score in batch]
    width = max(len(tree.input_ids) for tree in trees)
    ids = torch.full((len(trees), width), pad_id)
    labels = torch.full((len(trees), width), -100)
    score_at = torch.empty(len(trees), dtype=torch.long)
    for row, tree in enumerate(trees):
        ids[row, : len(tree.input_ids)] = torch.tensor(tree.input_ids)
        for position, token, kind in zip(tree.target_from, tree.target_ids, tree.target_kinds, strict=True):
            if kind != TokenKind.SCORE:
                labels[row, position + 1] = token
        score_at[row] = tree.score_reads[0][0]
    mask = torch.arange(width) < torch.tensor([len(tree.input_ids) for tree in trees])[:, None]
    device = next(model.parameters()).device
    ids, labels, score_at, mask = (tensor.to(device) for tensor in (ids, labels, score_at, mask.long()))
    logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits.float()
    ce = nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), reduction="sum")
    probabilities = torch.softmax(logits[torch.arange(len(trees), device=device), score_at], dim=-1)
    tokens = torch.tensor([ids[0] for ids in layout.score_ids], device=device)
    values = torch.tensor(layout.grid.values, device=device)
    expected = (probabilities[:, tokens] * values).sum(-1)
    truth = values[torch.tensor([score for _, _, score in batch], device=device)]
    return ce / ce_tokens + torch.square(truth - expected).sum() / examples


@torch.no_grad()
def generate_then_rescore(
    model: Any, layout: SequenceLayout, prompts: Sequence[Sequence[int]], n_cot: int, new_tokens: int, pad_id: int
) -> tuple[Tensor, Tensor]:
    """Samples CoTs with ``generate``, then runs each one from its prompt on to read the score behind the cue.

    Args:
        prompts: token ids, padded on the left. new_tokens: of each CoT, exactly: so that both ways do the same work.

    Returns:
        [B * n_cot] expected scores in points; [B * n_cot, new_tokens] the sampled CoTs.
    """
    device = next(model.parameters()).device
    width = max(map(len, prompts))
    ids = torch.tensor([[pad_id] * (width - len(prompt)) + list(prompt) for prompt in prompts], device=device)
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=device)
    sampled = model.generate(
        input_ids=ids, attention_mask=mask, do_sample=True, temperature=1.0, top_p=0.9, top_k=0, repetition_penalty=1.03,
        num_return_sequences=n_cot, min_new_tokens=new_tokens, max_new_tokens=new_tokens, pad_token_id=pad_id,
    )  # fmt: skip
    cue = torch.tensor([list(layout.cue_ids)], device=device).expand(len(sampled), -1)
    whole = torch.cat([sampled, cue], dim=1)
    seen = torch.cat([mask.repeat_interleave(n_cot, 0), torch.ones_like(whole[:, width:])], dim=1)
    positions = (seen.cumsum(1) - 1).clamp_min(0)
    logits = model(input_ids=whole, attention_mask=seen, position_ids=positions, use_cache=False).logits[:, -1].float()
    tokens = torch.tensor([ids[0] for ids in layout.score_ids], device=device)
    return torch.softmax(logits, -1)[:, tokens] @ torch.tensor(layout.grid.values, device=device), sampled[:, width:]
