"""Attention over token trees: each token sees its own path, computed run by run, without masks of the whole and without padding.

Trees are packed behind each other in one row. A run is a span of tokens that are contiguous on one path; it attends to itself
causally and to all tokens of the spans above it. So n continuations of one prompt cost one prompt (the keys of the prompt
serve them all), and no product of tokens that do not see each other is computed. Registered with transformers as
``attn_implementation="tree"``; a model that is called without runs attends as with "sdpa".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from tract.text.token_tree import SegmentRun

TREE = "tree"
# Names of the arguments that reach the attention through the model's forward.
RUNS, LIVE = "token_runs", "live_cache"


@dataclass(frozen=True, slots=True)
class LayerRules:
    """What a layer's attention does beside softmax(q k^T) v.

    Attributes:
        scaling: of the products.
        window: a token sees so many last positions of its path, itself among them (sliding attention); None for all.
        chunk: a token sees the positions of its own chunk of so many (Llama 4); None for all.
        softcap: a product x becomes softcap * tanh(x / softcap) (Gemma 2); None for none.
        sinks: [Hq], a product of each head whose share of the softmax goes to no token (gpt-oss); None for none.
    """

    scaling: float
    window: int | None = None
    chunk: int | None = None
    softcap: float | None = None
    sinks: Tensor | None = None


class LiveKeys(Protocol):
    """Keys and values of sequences that are being sampled; see ``tract.inference.hf.live``."""

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, rules: LayerRules) -> Tensor:
        """[B, Hq, Q, D], [B, Hkv, Q, D], [B, Hkv, Q, Dv] -> [B, Hq, Q, Dv]."""
        ...


class PackedSegments:
    """The runs of a packed row of T tokens, with what all layers share.

    Args:
        runs: cover 0..T without gaps, in ascending order.
        keep: whether each layer's keys and values are kept in ``kept``, by the number of the layer.
    """

    def __init__(self, runs: Sequence[SegmentRun], *, keep: bool = False) -> None:
        self.runs = tuple(runs)
        self.kept: dict[int, tuple[Tensor, Tensor]] | None = {} if keep else None
        self.used = False
        cuts = sorted({0, *(run.end for run in runs), *(place for run in runs for span in run.ancestors for place in span)})
        self._sizes = [end - start for start, end in zip(cuts, cuts[1:], strict=False)]
        place = {cut: number for number, cut in enumerate(cuts)}
        # For each run the pieces of the keys that it sees, in the order of their positions.
        self._pieces = [
            [piece for start, end in (*run.ancestors, (run.start, run.end)) for piece in range(place[start], place[end])]
            for run in self.runs
        ]
        self._masks: dict[tuple[Any, ...], Tensor] = {}

    def attend(self, query: Tensor, key: Tensor, value: Tensor, rules: LayerRules, dropout: float = 0.0) -> Tensor:
        """Attention of every token to its own path.

        Args:
            query: [1, Hq, T, D]. key: [1, Hkv, T, D]. value: [1, Hkv, T, Dv]. rules: of the layer. dropout: of the attention weights.

        Returns:
            [1, Hq, T, Dv].
        """
        groups = query.shape[1] // key.shape[1]
        queries = torch.split(query, [run.end - run.start for run in self.runs], dim=2)
        # One split for all runs: its gradient is written once, however many runs read a piece.
        keys, values = (torch.split(tensor, self._sizes, dim=2) for tensor in (key, value))
        by_hand = rules.softcap is not None or rules.sinks is not None
        out = []
        for q, pieces in zip(queries, self._pieces, strict=True):
            k, v = _joined(keys, pieces), _joined(values, pieces)
            mask = self._mask(q.shape[2], k.shape[2], rules, query, always=by_hand)
            grouped = groups > 1
            # No fast kernel of CUDA's takes both; a CPU's is slower grouped.
            if grouped and (by_hand or mask is not None or not query.is_cuda):
                k, v = k.repeat_interleave(groups, dim=1), v.repeat_interleave(groups, dim=1)
                grouped = False
            if by_hand:
                assert mask is not None
                attended = _softmax_by_hand(q, k, v, mask, rules, dropout)
            else:
                attended = F.scaled_dot_product_attention(
                    q, k, v, attn_mask=mask, dropout_p=dropout, is_causal=mask is None, scale=rules.scaling, enable_gqa=grouped
                )
            out.append(attended)
        return torch.cat(out, dim=2) if len(out) > 1 else out[0]

    def _mask(self, queries: int, keys: int, rules: LayerRules, like: Tensor, *, always: bool) -> Tensor | None:
        """[Q, K] additive mask of the last Q of K tokens on a path; None where plain causal attention is the same."""
        window, chunk = rules.window, rules.chunk
        if not always and queries == keys and (window is None or keys <= window) and (chunk is None or keys <= chunk):
            return None
        kind = (queries, keys, window, chunk, like.dtype, like.device)
        if kind not in self._masks:
            own, seen = torch.arange(keys - queries, keys, device=like.device)[:, None], torch.arange(keys, device=like.device)
            hidden = own < seen
            if window is not None:
                hidden |= own - seen >= window
            if chunk is not None:
                hidden |= own // chunk != seen // chunk
            self._masks[kind] = torch.zeros(queries, keys, dtype=like.dtype, device=like.device).masked_fill_(hidden, -torch.inf)
        return self._masks[kind]


def _softmax_by_hand(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, rules: LayerRules, dropout: float) -> Tensor:
    """[B, H, Q, Dv] by the rules that no fused kernel knows: capped products, sinks; from [B, H, Q, D], [B, H, K, D], [B, H, K, Dv]."""
    products = (query @ key.transpose(2, 3)) * rules.scaling
    if rules.softcap is not None:
        products = rules.softcap * torch.tanh(products / rules.softcap)
    products = (products + mask).float()
    if rules.sinks is not None:
        sinks = rules.sinks.float().view(1, -1, 1, 1).expand(len(query), -1, query.shape[2], 1)
        weights = torch.softmax(torch.cat([products, sinks], dim=-1), dim=-1)[..., :-1]
    else:
        weights = torch.softmax(products, dim=-1)
    attended: Tensor = F.dropout(weights.to(value.dtype), dropout) @ value
    return attended


def _joined(pieces: Sequence[Tensor], which: Sequence[int]) -> Tensor:
    return pieces[which[0]] if len(which) == 1 else torch.cat([pieces[k] for k in which], dim=2)


def tree_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """What transformers calls in each layer; [B, Hq, T, D], [B, Hkv, T, D], [B, Hkv, T, Dv] -> [B, T, Hq, Dv]."""
    runs: PackedSegments | None = kwargs.pop(RUNS, None)
    live: LiveKeys | None = kwargs.pop(LIVE, None)
    if runs is None and live is None:
        return _plain_attention(module, query, key, value, attention_mask, scaling, dropout, **kwargs)
    layer = int(module.layer_idx)  # type: ignore[arg-type]
    rules = LayerRules(
        scaling=query.shape[-1] ** -0.5 if scaling is None else scaling,
        window=kwargs.get("sliding_window"),
        chunk=_chunk_of(module, layer),
        softcap=kwargs.get("softcap"),
        sinks=kwargs.get("s_aux"),
    )
    if live is not None:
        return live.attend(layer, query, key, value, rules).transpose(1, 2).contiguous(), None
    assert runs is not None
    runs.used = True
    if runs.kept is not None:
        runs.kept[layer] = (key, value)
    return runs.attend(query, key, value, rules, dropout).transpose(1, 2).contiguous(), None


def _plain_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    scaling: float | None,
    dropout: float,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention of a call without runs: as with "sdpa", which alone would pass over caps and sinks without a word."""
    softcap, sinks = kwargs.get("softcap"), kwargs.get("s_aux")
    if softcap is None and sinks is None:
        plain: tuple[Tensor, None] = sdpa_attention_forward(module, query, key, value, mask, dropout=dropout, scaling=scaling, **kwargs)
        return plain
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    if mask is None:
        behind = key.shape[2] - query.shape[2]
        mask = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool, device=query.device).tril_(behind)
    if mask.dtype == torch.bool:
        mask = torch.zeros_like(mask, dtype=query.dtype).masked_fill_(~mask, torch.finfo(query.dtype).min)
    rules = LayerRules(query.shape[-1] ** -0.5 if scaling is None else scaling, softcap=softcap, sinks=sinks)
    return _softmax_by_hand(query, key, value, mask, rules, dropout).transpose(1, 2).contiguous(), None


def _chunk_of(module: nn.Module, layer: int) -> int | None:
    """Positions of a chunk, in a layer that attends within chunks (Llama 4)."""
    config: Any = getattr(module, "config", None)
    kinds = getattr(config, "layer_types", None)
    return config.attention_chunk_size if kinds and kinds[layer] == "chunked_attention" else None


AttentionInterface.register(TREE, tree_attention)
AttentionMaskInterface.register(TREE, sdpa_mask)


def visible_in(runs: Sequence[SegmentRun], size: int, device: torch.device | None = None) -> Tensor:
    """[T, T] bool, True where a token (first axis) sees another one: for attention that takes masks."""
    seen = torch.zeros(size, size, dtype=torch.bool, device=device)
    for run in runs:
        for start, end in run.ancestors:
            seen[run.start : run.end, start:end] = True
        seen[run.start : run.end, run.start : run.end] = True
    return seen.tril_()
