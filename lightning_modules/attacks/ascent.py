"""AutoPGD's walk: all of its state, per sample, so that samples can come and go without changing the others."""

from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_modules.attacks.method import Answer
from lightning_modules.attacks.projection import Norm, direction_, project_
from lightning_modules.attacks.walks import Samples, Walks

_MOMENTUM = 0.75  # alpha: weight of the new step against the last move
_OSCILLATION = 0.75  # rho: least share of steps that must raise the loss


@dataclass(frozen=True)
class Schedule:
    """When the step size is reviewed (Croce & Hein 2020, sec. 3.2), in iterations out of a budget."""

    first: int
    shrink: int
    shortest: int

    @classmethod
    def of(cls, steps: int) -> "Schedule":
        return cls(max(int(0.22 * steps), 1), max(int(0.03 * steps), 1), max(int(0.06 * steps), 1))


@dataclass
class Ascent(Walks):
    """B independent walks of AutoPGD (Croce & Hein 2020, alg. 1), each at an iteration of its own.

    Images are changed in place, so that a step needs one batch of them beside the state and the gradient.
    """

    aim: Tensor  # int64 (B,): the target class; the label's place is taken by `target`
    previous: Tensor  # float32 (B, C, H, W), as the next two
    best: Tensor
    best_gradient: Tensor
    best_loss: Tensor  # float32 (B,)
    last_loss: Tensor
    reviewed_loss: Tensor  # the best loss at the last review
    step_size: Tensor  # float32 (B, 1, 1, 1)
    iteration: Tensor  # int64 (B,), as the next three; -1 until the start is evaluated
    window: Tensor  # iterations between the last review and the next
    waited: Tensor  # iterations since the last review
    increases: Tensor  # how many of them raised the loss
    halved: Tensor  # bool (B,): the last review halved the step size

    @classmethod
    def begin(cls, samples: Samples, start: Tensor, aim: Tensor, eps: float, schedule: Schedule) -> "Ascent":
        """At starting points (B, C, H, W) within the budget, nothing evaluated yet."""
        zeros = torch.zeros_like(samples.row)
        lowest = start.new_full((len(start),), float("-inf"))
        return cls(
            row=samples.row,
            clean=samples.clean,
            target=samples.target,
            pixels=start,
            aim=aim,
            previous=start.clone(),
            best=start.clone(),
            best_gradient=start.clone(),
            best_loss=lowest,
            last_loss=lowest,
            reviewed_loss=lowest,
            step_size=start.new_full((len(start), 1, 1, 1), 2.0 * eps),
            iteration=zeros - 1,
            window=torch.full_like(zeros, schedule.first),
            waited=zeros,
            increases=zeros,
            halved=torch.ones_like(zeros, dtype=torch.bool),
        )

    def advance(self, answer: Answer, eps: float, norm: Norm, schedule: Schedule) -> None:
        """Takes in what the model says about `pixels`; moves on where a gradient, overwritten then, shows the way."""
        begins = self.iteration < 0
        improved = begins | (answer.losses > self.best_loss)
        _replace(self.best, improved, self.pixels)
        self.best_loss = torch.where(improved, answer.losses, self.best_loss)
        self.iteration = self.iteration + 1
        if answer.gradient is None:
            return
        _replace(self.best_gradient, improved, answer.gradient)
        self.reviewed_loss = torch.where(begins, answer.losses, self.reviewed_loss)
        self.increases = self.increases + (~begins & (answer.losses > self.last_loss))
        # The reference compares the first step's loss with 0, not with the start's.
        self.last_loss = torch.where(begins, 0.0, answer.losses)
        self.waited = self.waited + ~begins
        halve = self._review(schedule)
        _replace(self.pixels, halve, self.best)
        _replace(answer.gradient, halve, self.best_gradient)
        self._move(answer.gradient, eps, norm)

    def _move(self, gradient: Tensor, eps: float, norm: Norm) -> None:
        """One step of ascent with momentum, eq. 3: the next pixels take the gradient's place."""
        weight = torch.where(self.iteration == 0, 1.0, _MOMENTUM).view(-1, 1, 1, 1)
        moved = project_(direction_(gradient, norm).mul_(self.step_size).add_(self.pixels), self.clean, eps, norm)
        last_move = self.previous.neg_().add_(self.pixels).mul_(1.0 - weight)
        moved.sub_(self.pixels).mul_(weight).add_(self.pixels).add_(last_move)
        self.previous, self.pixels = self.pixels, project_(moved, self.clean, eps, norm)

    def _review(self, schedule: Schedule) -> Tensor:
        """Where a window ends: halves the step size, if a condition of sec. 3.2 holds, and says where, bool (B,), since
        there the walk goes back to the best point."""
        due = self.waited == self.window
        oscillates = self.increases <= _OSCILLATION * self.window
        stalls = ~self.halved & (self.reviewed_loss >= self.best_loss)
        halve = due & (oscillates | stalls)
        self.step_size = torch.where(_images(halve), self.step_size / 2.0, self.step_size)
        self.halved = torch.where(due, halve, self.halved)
        self.reviewed_loss = torch.where(due, self.best_loss, self.reviewed_loss)
        self.window = torch.where(due, (self.window - schedule.shrink).clamp_min(schedule.shortest), self.window)
        self.waited, self.increases = self.waited.masked_fill(due, 0), self.increases.masked_fill(due, 0)
        return halve


def _replace(images: Tensor, where: Tensor, others: Tensor) -> None:
    torch.where(_images(where), others, images, out=images)


def _images(mask: Tensor) -> Tensor:
    return mask.view(-1, 1, 1, 1)
