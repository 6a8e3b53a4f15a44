"""AutoPGD's walk: all of its state, per sample, so that samples can leave a batch without changing the others."""

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from lightning_modules.attacks.projection import Norm, direction, project

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
class Ascent:
    """B independent walks of AutoPGD (Croce & Hein 2020, alg. 1), each at an iteration of its own.

    `row` is the place of a walk in the caller's batch. A walk that has `fallen` no longer moves.
    """

    row: Tensor  # int64 (B,)
    clean: Tensor  # float32 (B, C, H, W), as the next five
    pixels: Tensor
    previous: Tensor
    gradient: Tensor
    best: Tensor
    best_gradient: Tensor
    target: Tensor  # (B, ...)
    best_loss: Tensor  # float32 (B,)
    last_loss: Tensor
    reviewed_loss: Tensor  # the best loss at the last review
    step_size: Tensor  # float32 (B, 1, 1, 1)
    iteration: Tensor  # int64 (B,), as the next three
    window: Tensor  # iterations between the last review and the next
    waited: Tensor  # iterations since the last review
    increases: Tensor  # how many of them raised the loss
    halved: Tensor  # bool (B,): the last review halved the step size
    fallen: Tensor  # bool (B,)

    @classmethod
    def begin(
        cls,
        clean: Tensor,
        start: Tensor,
        target: Tensor,
        losses: Tensor,
        gradient: Tensor,
        fallen: Tensor,
        eps: float,
        schedule: Schedule,
    ) -> "Ascent":
        """At an evaluated starting point: its losses (B,), gradient (B, C, H, W) and who has fallen (B,)."""
        count, zeros = len(clean), torch.zeros(len(clean), dtype=torch.int64, device=clean.device)
        return cls(
            row=torch.arange(count, device=clean.device),
            clean=clean,
            pixels=start,
            previous=start,
            gradient=gradient,
            best=start,
            best_gradient=gradient,
            target=target,
            best_loss=losses,
            last_loss=torch.zeros_like(losses),  # the reference compares its first loss with 0, not with the start's
            reviewed_loss=losses,
            step_size=clean.new_full((count, 1, 1, 1), 2.0 * eps),
            iteration=zeros,
            window=torch.full_like(zeros, schedule.first),
            waited=zeros,
            increases=zeros,
            halved=torch.ones_like(fallen),
            fallen=fallen,
        )

    def select(self, rows: Tensor) -> "Ascent":
        """The walks at these places, int64 (R,) or bool (B,)."""
        return replace(self, **{each.name: getattr(self, each.name)[rows] for each in fields(self)})

    def move(self, eps: float, norm: Norm) -> None:
        """One step of ascent with momentum, eq. 3."""
        weight = torch.where(self.iteration == 0, 1.0, _MOMENTUM).view(-1, 1, 1, 1)
        ascended = project(self.pixels + self.step_size * direction(self.gradient, norm), self.clean, eps, norm)
        moved = self.pixels + (ascended - self.pixels) * weight + (self.pixels - self.previous) * (1.0 - weight)
        self.previous = self.pixels
        self.pixels = torch.where(_images(self.fallen), self.pixels, project(moved, self.clean, eps, norm))

    def observe(self, losses: Tensor, gradient: Tensor | None, fallen: Tensor, schedule: Schedule) -> None:
        """Takes in what the model says about `pixels`; `gradient` is None after the last step."""
        self.fallen = self.fallen | fallen
        improved = losses > self.best_loss
        self.best = torch.where(_images(improved), self.pixels, self.best)
        self.best_loss = torch.where(improved, losses, self.best_loss)
        if gradient is None:
            return
        self.gradient = gradient
        self.best_gradient = torch.where(_images(improved), gradient, self.best_gradient)
        self.increases = self.increases + (losses > self.last_loss)
        self.last_loss = losses
        self.iteration, self.waited = self.iteration + 1, self.waited + 1
        self._review(schedule)

    def _review(self, schedule: Schedule) -> None:
        """Where a window ends: halve the step size and go back to the best point, if a condition of sec. 3.2 holds."""
        due = self.waited == self.window
        oscillates = self.increases <= _OSCILLATION * self.window
        stalls = ~self.halved & (self.reviewed_loss >= self.best_loss)
        halve = due & (oscillates | stalls)
        back = _images(halve & ~self.fallen)
        self.step_size = torch.where(_images(halve), self.step_size / 2.0, self.step_size)
        self.pixels = torch.where(back, self.best, self.pixels)
        self.gradient = torch.where(back, self.best_gradient, self.gradient)
        self.halved = torch.where(due, halve, self.halved)
        self.reviewed_loss = torch.where(due, self.best_loss, self.reviewed_loss)
        self.window = torch.where(due, (self.window - schedule.shrink).clamp_min(schedule.shortest), self.window)
        self.waited, self.increases = self.waited.masked_fill(due, 0), self.increases.masked_fill(due, 0)


def _images(mask: Tensor) -> Tensor:
    return mask.view(-1, 1, 1, 1)
