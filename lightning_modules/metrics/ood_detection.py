"""Detection of out-of-distribution samples from one score, over batches and processes."""

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from configs.errors import DataError
from lightning_modules.metrics.ood import aupr, auroc, fpr_at_recall


class OODDetection(Metric):
    """How well a score separates in-distribution (ID) samples, which should score higher, from OOD ones.

    `compute` returns float64 scalars, and raises DataError where one of the two kinds is missing:
        auroc          P(ID > OOD), ties count half.
        aupr_in        average precision with ID as the positive class.
        aupr_out       average precision with OOD as the positive class, scores negated.
        fpr95_id_pos   share of OOD at or above the threshold that keeps 95 % of ID (MCM, NegLabel).
        fpr95_ood_pos  share of ID at or below the threshold that catches 95 % of OOD (OpenOOD).
    """

    full_state_update = False
    scores: list[Tensor]
    is_ood: list[Tensor]

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("scores", default=[], dist_reduce_fx="cat")
        self.add_state("is_ood", default=[], dist_reduce_fx="cat")

    def update(self, scores: Tensor, is_ood: Tensor, valid: Tensor) -> None:
        """Scores float (B,); is_ood bool (B,); valid bool (B,), False on padding."""
        self.scores.append(scores.detach()[valid])
        self.is_ood.append(is_ood[valid])

    def compute(self) -> dict[str, Tensor]:
        scores, is_ood = self._all()
        inside, outside = scores[~is_ood], scores[is_ood]
        if not len(inside) or not len(outside):
            raise DataError(
                f"OOD detection needs samples of both kinds, got {len(inside)} in-distribution and {len(outside)} OOD; "
                "check the splits that it reads"
            )
        return {
            "auroc": auroc(inside, outside),
            "aupr_in": aupr(inside, outside),
            "aupr_out": aupr(-outside, -inside),
            "fpr95_id_pos": fpr_at_recall(inside, outside),
            "fpr95_ood_pos": fpr_at_recall(-outside, -inside),
        }

    def _all(self) -> tuple[Tensor, Tensor]:
        if isinstance(self.scores, list) and not self.scores:
            return torch.zeros(0), torch.zeros(0, dtype=torch.bool)
        return dim_zero_cat(self.scores), dim_zero_cat(self.is_ood).bool()
