"""AutoPGD, untargeted and targeted."""

from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_modules.attacks import noise
from lightning_modules.attacks.ascent import Ascent, Schedule
from lightning_modules.attacks.attack import Adversarial, FallenFn, LossFn, ModelFn, input_gradient
from lightning_modules.attacks.losses import targeted_dlr
from lightning_modules.attacks.projection import Norm, boundary_start
from lightning_modules.attacks.trials import Trial, best_of


@dataclass(frozen=True)
class APGD:
    """AutoPGD (Croce & Hein 2020), as AutoAttack's reference has it for L-inf and L2. See `Attack` for the call.

    With `fallen`, a sample leaves the working batch once it falls, and restarts see only the samples that stand; the
    set of the fallen is that of the full run. Without it, every sample gets `steps` steps and the point of highest loss
    over all restarts is returned. A run makes steps + 1 forwards and `steps` backwards.

    eps  in units of the pixel range [0, 1].
    """

    norm: Norm
    eps: float
    steps: int = 100
    restarts: int = 1

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
        clean = pixels.detach().float()

        def run(rows: Tensor, restart: int) -> Trial:
            start = boundary_start(clean[rows], noise.derive(seeds[rows], restart), self.eps, self.norm)
            return self.climb(model_fn, clean[rows], start, target[rows], loss_fn, fallen or _never)

        return best_of(run, self.restarts, clean)

    def climb(
        self, model_fn: ModelFn, clean: Tensor, start: Tensor, target: Tensor, loss_fn: LossFn, fallen: FallenFn
    ) -> Trial:
        """One run from given starting points, float32 (B, C, H, W)."""
        schedule = Schedule.of(self.steps)
        outputs, losses, gradient = input_gradient(model_fn, start, target, loss_fn)
        zero_gradient = (gradient == 0).flatten(1).float().mean(1)
        walk = Ascent.begin(clean, start, target, losses, gradient, fallen(outputs, target), self.eps, schedule)
        pixels, losses, fell = torch.empty_like(clean), torch.empty_like(losses), torch.zeros_like(walk.fallen)
        # Dropping the fallen costs a synchronisation, so on an accelerator it is done every few steps.
        interval = 1 if clean.device.type == "cpu" else 5
        for step in range(self.steps):
            if fallen is not _never and step % interval == 0:
                walk = _drop_fallen(walk, pixels, losses, fell)
                if not len(walk.row):
                    break
            walk.move(self.eps, self.norm)
            _evaluate(walk, model_fn, loss_fn, fallen, schedule, last=step == self.steps - 1)
        _record(walk, pixels, losses, fell)
        return Trial(Adversarial(pixels, zero_gradient, fell), losses)


@dataclass(frozen=True)
class TargetedAPGD:
    """AutoPGD towards each of the classes that come after the first in the clean logits (Croce & Hein 2020, sec. 5).

    The target is the labels, the loss its own, and `loss_fn` is not used. See `Attack` for the call, and `APGD`.

    targets  how many classes are aimed at, best clean logit first; at most the number of classes minus 1.
    loss     on logits and pairs int64 (B, 2): (label, target class).
    """

    norm: Norm
    eps: float
    steps: int = 100
    restarts: int = 1
    targets: int = 9
    loss: LossFn = targeted_dlr

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
        clean = pixels.detach().float()
        ranked = model_fn(clean)
        aims = ranked.topk(min(self.targets + 1, ranked.shape[1]), dim=1).indices[:, 1:]
        ascent = APGD(self.norm, self.eps, self.steps)
        judge = (lambda outputs, pair: fallen(outputs, pair[:, 0])) if fallen else _never

        def run(rows: Tensor, number: int) -> Trial:
            pair = torch.stack([target[rows], aims[rows, number // self.restarts]], dim=1)
            start = boundary_start(clean[rows], noise.derive(seeds[rows], number), self.eps, self.norm)
            return ascent.climb(model_fn, clean[rows], start, pair, self.loss, judge)

        return best_of(run, aims.shape[1] * self.restarts, clean)


def _evaluate(
    walk: Ascent, model_fn: ModelFn, loss_fn: LossFn, fallen: FallenFn, schedule: Schedule, last: bool
) -> None:
    gradient = None
    if last:
        outputs = model_fn(walk.pixels)
        losses = loss_fn(outputs, walk.target)
    else:
        outputs, losses, gradient = input_gradient(model_fn, walk.pixels, walk.target, loss_fn)
    walk.observe(losses, gradient, fallen(outputs, walk.target), schedule)


def _drop_fallen(walk: Ascent, pixels: Tensor, losses: Tensor, fell: Tensor) -> Ascent:
    standing = (~walk.fallen).nonzero().squeeze(1)
    if len(standing) == len(walk.row):
        return walk
    _record(walk.select(walk.fallen), pixels, losses, fell)
    return walk.select(standing)


def _record(walk: Ascent, pixels: Tensor, losses: Tensor, fell: Tensor) -> None:
    """Where it fell, or else the best point."""
    pixels[walk.row] = torch.where(walk.fallen.view(-1, 1, 1, 1), walk.pixels, walk.best)
    losses[walk.row], fell[walk.row] = walk.best_loss, walk.fallen


def _never(outputs: Tensor, _target: Tensor) -> Tensor:
    return torch.zeros(len(outputs), dtype=torch.bool, device=outputs.device)
