"""AutoPGD for the L1 norm, untargeted and targeted: steps and sparsity adapt, and the radius comes down in stages."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lightning_modules.attacks import noise
from lightning_modules.attacks.apgd import ranked_class
from lightning_modules.attacks.attack import LossFn
from lightning_modules.attacks.losses import targeted_dlr
from lightning_modules.attacks.method import Answer
from lightning_modules.attacks.simplex import direction, project
from lightning_modules.attacks.walks import Samples, Walks, in_parts

_RADII = 3  # a shrinking walk begins with this many times the radius
_EARLY = 0.3  # share of the steps at each radius but the last
_REVIEW = 0.04  # share of a stage's steps from one review of step size and sparsity to the next
_SHRINK = 1.5  # what a review divides by: the step size, and the number of touched coordinates
_SHORTEST = 0.1  # least step size, and
_SPARSER = 0.95  # a share of the coordinates touched before below which the step size starts again
_FIRST_SHARE = 0.2  # of the coordinates that a plain walk's first steps may move


@dataclass
class SparseAscent(Walks):
    """B independent walks of L1-APGD, each at a radius and iteration of its own."""

    aim: Tensor  # int64 (B,): the target class
    best: Tensor  # float32 (B, C, H, W), as the next: since the radius changed
    best_gradient: Tensor
    best_loss: Tensor  # float32 (B,), as the next three
    step_size: Tensor
    share: Tensor  # of the coordinates that a step may move
    touched: Tensor  # coordinates in which the best point differed from the clean one at the last review
    radii: Tensor  # int64 (B,): the present radius in multiples of eps; 0 once the walk is over
    iteration: Tensor  # int64 (B,): steps made at this radius


@dataclass(frozen=True)
class L1APGD:
    """L1-APGD (Croce & Hein 2021, "Mind the box"), as AutoAttack's reference has it. A `Method`.

    Success counts within the radius `eps` only. A trial asks steps + 1 questions, and 2 more where it shrinks.

    eps        L1 radius, in units of the pixel range [0, 1].
    restarts   trials, each from a random start of its own.
    shrinking  30 % of the steps at radius 3 eps, 30 % at 2 eps, the rest at eps, each from the best point before.
    own_loss   what is raised; None is the loss that the attack is called with.
    """

    eps: float
    steps: int = 100
    restarts: int = 5
    shrinking: bool = True
    own_loss: LossFn | None = None

    needs_gradient: ClassVar[tuple[bool, ...]] = (True,)
    targeted: ClassVar = False

    @property
    def queries(self) -> int:
        early, last = self._lengths()
        return last + 1 + (self._first_radii() - 1) * (early + 1)

    def trials(self, classes: int) -> int:
        return self.restarts

    def begin(self, samples: Samples) -> SparseAscent:
        return self._walk(samples, torch.zeros_like(samples.row))

    def start(self, samples: Samples) -> Tensor:
        """Random pixels, float32 (B, C, H, W), whose projection on the first radius is the starting point."""
        draw = noise.normal(noise.derive(samples.seeds, samples.trial), samples.clean.shape[1:])
        return draw.add_(samples.clean)

    def loss(self, outputs: Tensor, walks: SparseAscent, loss_fn: LossFn) -> Tensor:
        return (self.own_loss or loss_fn)(outputs, walks.target)

    def advance(self, walks: SparseAscent, answer: Answer) -> None:
        over = self.over(walks)
        begins = (walks.iteration == 0) & ~over
        improved = begins | (answer.losses > walks.best_loss) & ~over
        torch.where(_images(improved), walks.pixels, walks.best, out=walks.best)
        walks.best_loss = torch.where(improved, answer.losses, walks.best_loss)
        if answer.gradient is None:
            walks.radii = torch.zeros_like(walks.radii)
            return
        torch.where(_images(improved), answer.gradient, walks.best_gradient, out=walks.best_gradient)
        back = _images(self._review(walks, begins))
        torch.where(back, walks.best, walks.pixels, out=walks.pixels)
        torch.where(back, walks.best_gradient, answer.gradient, out=answer.gradient)
        self._move(walks, answer.gradient)

    def over(self, walks: SparseAscent) -> Tensor:
        return walks.radii == 0

    def inside(self, walks: SparseAscent) -> Tensor:
        return walks.radii == 1

    def best(self, walks: SparseAscent) -> tuple[Tensor, Tensor]:
        return walks.best, walks.best_loss

    def _walk(self, samples: Samples, aim: Tensor) -> SparseAscent:
        nothing = samples.clean.new_zeros(len(samples))
        radii = torch.full_like(samples.row, self._first_radii())
        start = in_parts(project, self.start(samples), samples.clean, radii * self.eps)
        return SparseAscent(
            row=samples.row,
            clean=samples.clean,
            target=samples.target,
            pixels=start,
            aim=aim,
            best=start.clone(),
            best_gradient=start.clone(),
            best_loss=nothing,
            step_size=nothing,
            share=nothing,
            touched=nothing,
            radii=radii,
            iteration=torch.zeros_like(radii),
        )

    def _review(self, walks: SparseAscent, begins: Tensor) -> Tensor:
        """Sets step size and sparsity where a review is due or a radius `begins`; who goes back to the best point."""
        longest = walks.radii * self.eps
        due = walks.iteration % self._by_radius(walks, *map(_interval, self._lengths())) == 0
        touched = (walks.best != walks.clean).flatten(1).sum(dim=1).float()
        share = touched / walks.clean[0].numel() / _SHRINK
        if not self.shrinking:  # a random start says nothing about sparsity yet
            touched = touched.masked_fill(begins, walks.clean[0].numel())
            share = share.masked_fill(begins, _FIRST_SHARE)
        sparser = due & (begins | (touched / walks.touched < _SPARSER))
        shorter = torch.maximum(walks.step_size / _SHRINK, longest * _SHORTEST)
        walks.step_size = torch.where(sparser, longest, torch.where(due, shorter, walks.step_size))
        walks.share = torch.where(due, share, walks.share)
        walks.touched = torch.where(due, touched, walks.touched)
        return sparser

    def _move(self, walks: SparseAscent, gradient: Tensor) -> None:
        """One step of ascent, or the best point on the next smaller radius where the steps at this one are made; in the
        place of the gradient."""
        walks.pixels = in_parts(_ascended, gradient, walks.pixels, walks.share, walks.step_size)
        ends = walks.iteration == self._by_radius(walks, *self._lengths())
        walks.radii = walks.radii - (ends & (walks.radii > 0)).long()
        walks.iteration = (walks.iteration + 1).masked_fill(ends, 0)
        torch.where(_images(ends), walks.best, walks.pixels, out=walks.pixels)
        in_parts(project, walks.pixels, walks.clean, walks.radii.clamp_min(1) * self.eps)

    def _first_radii(self) -> int:
        return _RADII if self.shrinking else 1

    def _lengths(self) -> tuple[int, int]:
        """Steps at each radius but the last, and at the last."""
        early = math.ceil(_EARLY * self.steps)
        return early, max(self.steps - (self._first_radii() - 1) * early, 0)

    def _by_radius(self, walks: SparseAscent, early: int, last: int) -> Tensor:
        return torch.where(walks.radii > 1, early, last)


@dataclass(frozen=True)
class TargetedL1APGD(L1APGD):
    """L1-APGD towards each of the classes that come after the first in the clean logits.

    Targets are labels, int64 (B,), and the loss is targeted DLR, or the targeted margin below 4 classes.

    restarts  of each target class.
    targets   how many classes are aimed at, best clean logit first; at most the number of classes minus 1.
    """

    restarts: int = 1
    targets: int = 5

    targeted: ClassVar = True

    def trials(self, classes: int) -> int:
        return min(self.targets, classes - 1) * self.restarts

    def begin(self, samples: Samples) -> SparseAscent:
        return self._walk(samples, ranked_class(samples.outputs, 1 + samples.trial // self.restarts))

    def loss(self, outputs: Tensor, walks: SparseAscent, loss_fn: LossFn) -> Tensor:
        return targeted_dlr(outputs, torch.stack([walks.target, walks.aim], dim=1))


def _ascended(gradient: Tensor, pixels: Tensor, share: Tensor, step_size: Tensor) -> Tensor:
    return direction(gradient, share).mul_(_images(step_size)).add_(pixels)


def _interval(steps: int) -> int:
    return max(int(_REVIEW * steps), 1)


def _images(mask: Tensor) -> Tensor:
    return mask.view(-1, 1, 1, 1)
