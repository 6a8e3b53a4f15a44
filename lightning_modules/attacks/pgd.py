"""Projected gradient ascent."""

from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_modules.attacks import noise
from lightning_modules.attacks.attack import (
    Adversarial,
    FallenFn,
    LossFn,
    ModelFn,
    check_mode,
    input_gradient,
    zero_share,
)
from lightning_modules.attacks.projection import Norm, direction_, project_, uniform_start
from lightning_modules.attacks.trials import Trial, best_of


@dataclass(frozen=True)
class PGD:
    """Projected gradient ascent (Madry et al. 2018). See `Attack` for the call.

    One restart without `fallen` returns the last iterate, after exactly `steps` forwards and backwards. Otherwise each
    restart's last iterate is forwarded once more and judged: a sample keeps the restart in which it falls, or else that
    of the highest loss, and the next restart sees only the samples that stand.

    eps, step  in units of the pixel range [0, 1].
    momentum   of the gradient over its mean absolute value (Dong et al. 2018, eq. 6); 0 is plain PGD. FARE's trainer
               adds 0.9 times the last *sign* to the new one and takes the sign again: under L-inf, plain PGD.
    """

    norm: Norm
    eps: float
    step: float
    steps: int
    restarts: int = 1
    momentum: float = 0.0
    random_start: bool = True

    @torch.no_grad()
    def __call__(
        self,
        model_fn: ModelFn,
        pixels: Tensor,
        target: Tensor,
        loss_fn: LossFn,
        seeds: Tensor,
        fallen: FallenFn | None = None,
    ) -> Adversarial:
        check_mode(model_fn)
        clean = pixels.detach().float()

        def run(rows: Tensor, restart: int) -> Trial:
            wanted = target[rows]
            last, zero_gradient = self._climb(
                model_fn, clean[rows], wanted, loss_fn, noise.derive(seeds[rows], restart)
            )
            outputs = model_fn(last)
            fell = fallen(outputs, wanted) if fallen else torch.zeros_like(rows, dtype=torch.bool)
            return Trial(Adversarial(last, zero_gradient, fell), loss_fn(outputs, wanted))

        if fallen or self.restarts > 1:
            return best_of(run, self.restarts, clean)
        last, zero_gradient = self._climb(model_fn, clean, target, loss_fn, noise.derive(seeds, 0))
        return Adversarial(last, zero_gradient, torch.zeros_like(seeds, dtype=torch.bool))

    def _climb(
        self, model_fn: ModelFn, clean: Tensor, target: Tensor, loss_fn: LossFn, seeds: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The last iterate, and the share of zero gradients at the first."""
        pixels = uniform_start(clean, seeds, self.eps, self.norm) if self.random_start else clean
        zero_gradient = clean.new_zeros(len(clean))
        velocity = torch.zeros_like(clean) if self.momentum else clean
        for step in range(self.steps):
            _, _, gradient = input_gradient(model_fn, pixels, target, loss_fn)
            if step == 0:
                zero_gradient = zero_share(gradient)
            if self.momentum:
                gradient = self._accelerate(velocity, gradient).clone()
            moved = direction_(gradient, self.norm).mul_(self.step).add_(pixels)
            pixels = project_(moved, clean, self.eps, self.norm)
        return pixels, zero_gradient

    def _accelerate(self, velocity: Tensor, gradient: Tensor) -> Tensor:
        scale = gradient.abs().flatten(1).mean(1).clamp_min(1e-30).view(-1, 1, 1, 1)
        return velocity.mul_(self.momentum).add_(gradient / scale)
