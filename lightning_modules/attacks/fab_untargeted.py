"""Fast adaptive boundary attack, untargeted."""

import torch
from torch import Tensor

from lightning_modules.attacks.attack import LossFn
from lightning_modules.attacks.fab import BoundaryWalks, TargetedFAB
from lightning_modules.attacks.hyperplane import DUALS, length
from lightning_modules.attacks.walks import Samples

_TINY = 1e-12  # as in AutoAttack's reference


class UntargetedFAB(TargetedFAB):
    """FAB (Croce & Hein 2020): every step goes to the nearest of all classes' boundaries, at a backward pass for each.

    `targets` is not used: each restart is one trial.
    """

    def trials(self, classes: int) -> int:
        return self.restarts

    def begin(self, samples: Samples) -> BoundaryWalks:
        return self.walks(samples, aim=samples.target)

    def loss(self, outputs: Tensor, walks: BoundaryWalks, loss_fn: LossFn) -> Tensor:
        """Each logit minus the label's, (B, K)."""
        logits = outputs.float()
        return logits - logits.gather(1, walks.target[:, None])

    def step(self, walks: BoundaryWalks, height: Tensor, gradient: Tensor) -> Tensor:
        """As `TargetedFAB.step`, of heights (B, K) and gradients (B, K, C, H, W): to the nearest boundary (eq. 10)."""
        steepness = length(gradient.flatten(0, 1), DUALS[self.norm]).view_as(height)
        distance = height.abs() / (steepness + _TINY)
        nearest = distance.scatter(1, walks.target[:, None], float("inf")).argmin(1)
        rows = torch.arange(len(nearest), device=nearest.device)
        return super().step(walks, height[rows, nearest], gradient[rows, nearest])
