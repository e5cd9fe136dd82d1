"""How well predicted scores agree with true ones: torchmetrics under the keys that all reports use."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torchmetrics import KendallRankCorrCoef, MeanSquaredError, Metric, MetricCollection, PearsonCorrCoef, SpearmanCorrCoef
from torchmetrics.utilities import dim_zero_cat


class ConstantRMSE(Metric):
    """RMSE of the best constant prediction, which is the standard deviation of the targets (points).

    A judge that does not beat it has learned nothing about the responses, whatever its RMSE looks like.
    """

    full_state_update = False
    targets: list[Tensor]

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("targets", default=[], dist_reduce_fx="cat")

    def update(self, preds: Tensor, target: Tensor) -> None:  # noqa: ARG002  (the collection passes both)
        """Remembers the targets; predictions play no part."""
        self.targets.append(target.detach())

    def compute(self) -> Tensor:
        """[] float32, points."""
        # dim_zero_cat: after synchronisation between ranks the state is one tensor instead of a list.
        return dim_zero_cat(self.targets).float().std(correction=0)


def judge_metrics(prefix: str) -> MetricCollection:
    """Pearson r, Spearman rho, Kendall tau-b, RMSE and the constant baseline's RMSE, of what this process is given.

    Update with predictions and targets, each [n] float32 in points, one value per judged response.
    """
    return MetricCollection(
        {
            "pearson_r": PearsonCorrCoef(sync_on_compute=False),
            "spearman_rho": SpearmanCorrCoef(sync_on_compute=False),
            "kendall_tau": KendallRankCorrCoef(variant="b", sync_on_compute=False),
            "rmse": MeanSquaredError(squared=False, sync_on_compute=False),
            "rmse_constant": ConstantRMSE(sync_on_compute=False),
        },
        prefix=prefix,
        compute_groups=False,
    )
