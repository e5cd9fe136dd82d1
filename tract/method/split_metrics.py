"""Metrics of RAIL over a split of the data, gathered from all ranks; items that are not finite are named, not averaged over."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tract.common.distributed import all_gather_object
from tract.data.batches import JudgeBatch
from tract.method.metrics import judge_metrics
from tract.method.objective import ObjectiveParts


class SplitMetrics(nn.Module):
    """Metrics of RAIL on given CoTs: an item's predictions are averaged and compared with its target.

    Ranks may have seen different numbers of items, or none; each computes the values of all of them.
    """

    means = ("ce", "squared_error", "score_mass")

    def __init__(self, split: str) -> None:
        super().__init__()
        self.split = split
        self.reset()

    def reset(self) -> None:
        """Forgets everything."""
        self._predictions: list[Tensor] = []
        self._targets: list[Tensor] = []
        self._sums: list[Tensor] = []  # [5] each: CE and its tokens, squared error, score mass, examples
        self._ids: list[list[str]] = []

    def update(self, parts: ObjectiveParts, batch: JudgeBatch) -> None:
        """Takes a micro-batch into account, unless it is padding."""
        if batch.is_padding:
            return
        counts = torch.bincount(batch.item_index, minlength=len(batch.targets))
        sums = torch.zeros_like(batch.targets).index_add_(0, batch.item_index, parts.expected_score)
        self._predictions.append(sums / counts)
        self._targets.append(batch.targets)
        tokens, examples = (parts.ce_sum.new_tensor(float(count)) for count in (parts.ce_tokens, len(parts.squared_error)))
        self._ids.append(list(batch.item_ids))
        self._sums.append(torch.stack([parts.ce_sum, tokens, parts.squared_error.sum(), parts.score_mass.sum(), examples]))

    def compute(self) -> tuple[dict[str, float | None], list[str]]:
        """All values under their keys, None where one is undefined, and the ids of the items that are not finite.

        With such items there are no values.
        """
        own = [torch.cat([torch.zeros(0), *(part.float().cpu() for part in kept)]) for kept in (self._predictions, self._targets)]
        sums = torch.stack([torch.zeros(5), *(part.float().cpu() for part in self._sums)]).sum(dim=0)
        of_ranks = all_gather_object((*own, sums, self._bad_items() if not torch.isfinite(torch.cat([own[0], sums])).all() else []))
        if bad := [name for rank in of_ranks for name in rank[3]]:
            return {}, bad
        predictions, targets = (torch.cat([rank[place] for rank in of_ranks]) for place in (0, 1))
        ce, tokens, squared_error, mass, examples = torch.stack([rank[2] for rank in of_ranks]).sum(dim=0)
        means = {"squared_error": squared_error / examples, "score_mass": mass / examples, **({"ce": ce / tokens} if tokens > 0 else {})}
        values = {**judge_metrics(predictions, targets), **{name: mean.item() for name, mean in means.items()}}
        return {f"{self.split}/{name}": value for name, value in values.items()}, []

    def _bad_items(self) -> list[str]:
        """Ids of the items whose prediction is not finite; where only a sum is not, of all of its micro-batch."""
        found: list[str] = []
        for ids, predictions, sums in zip(self._ids, self._predictions, self._sums, strict=True):
            alone = [name for name, finite in zip(ids, torch.isfinite(predictions).tolist(), strict=True) if not finite]
            found += alone or ([] if bool(torch.isfinite(sums).all()) else ids)
        return found or ["the sum over all items"]
