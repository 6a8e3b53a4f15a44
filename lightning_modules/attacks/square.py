"""Square: random search in square windows, without gradients."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_modules.attacks import noise, windows
from lightning_modules.attacks.attack import LossFn
from lightning_modules.attacks.losses import margin
from lightning_modules.attacks.method import Answer
from lightning_modules.attacks.shrinkage import shrink
from lightning_modules.attacks.walks import Samples, Walks

_TINY = 1e-12  # as in AutoAttack's reference: what is divided by the length of nothing stays 0
_TILES = 5  # of the starting pattern, from top to bottom
_WITHIN = 1 - 1e-6  # of the L1 radius, so that rounding does not leave it


@dataclass
class Search(Walks):
    """B independent random searches, each at an iteration of its own."""

    best: Tensor  # float32 (B, C, H, W)
    best_loss: Tensor  # float32 (B,), -inf before the first answer
    seeds: Tensor  # int64 (B,), of the trial
    iteration: Tensor  # int64 (B,): answers taken in, so the number of the window that is being tried


@dataclass(frozen=True)
class Square:
    """Square attack (Andriushchenko et al. 2020), as AutoAttack's reference has it. A `Method`.

    L-inf: vertical stripes of +-eps at first, then squares of +-eps with one sign a channel. L2 and L1: a grid of
    patterns at first, then the mass of one window goes into another. What does not raise the loss is undone. Positions,
    signs and window sides are each sample's own. A trial asks proposals + 1 questions.

    Where an L2 or L1 window holds or receives nothing but rounding errors, the reference scales these up to full size,
    and so does this with its own; apart from that, equal draws give equal walks.

    eps        in units of the pixel range [0, 1].
    proposals  windows tried, after the start.
    restarts   trials, each from a random start of its own.
    own_loss   what is raised, by default on logits and labels; None is the loss that the attack is called with.
    """

    norm: Literal["linf", "l2", "l1"]
    eps: float
    proposals: int = 5000
    restarts: int = 1
    own_loss: LossFn | None = margin

    needs_gradient: ClassVar[tuple[bool, ...]] = (False,)
    targeted: ClassVar = False

    @property
    def queries(self) -> int:
        return self.proposals + 1

    def trials(self, classes: int) -> int:
        return self.restarts

    def draw(self, seeds: Tensor, iteration: Tensor, count: int) -> Tensor:
        """The random numbers of an iteration, uniform in [-1, 1): float32 (B, count)."""
        return noise.uniform(noise.derive(seeds, iteration), (count,))

    def begin(self, samples: Samples) -> Search:
        seeds, iteration = noise.derive(samples.seeds, samples.trial), torch.zeros_like(samples.row)
        start = self._stripes if self.norm == "linf" else self._tiles
        return Search(
            row=samples.row,
            clean=samples.clean,
            target=samples.target,
            pixels=start(samples.clean, seeds, iteration),
            best=samples.clean.clone(),
            best_loss=samples.clean.new_full((len(samples),), float("-inf")),
            seeds=seeds,
            iteration=iteration,
        )

    def loss(self, outputs: Tensor, walks: Search, loss_fn: LossFn) -> Tensor:
        return (self.own_loss or loss_fn)(outputs, walks.target)

    def advance(self, walks: Search, answer: Answer) -> None:
        improved = answer.losses > walks.best_loss
        walks.best.lerp_(walks.pixels, _weight(improved.view(-1, 1, 1, 1)))
        walks.best_loss = torch.where(improved, answer.losses, walks.best_loss)
        walks.iteration = walks.iteration + 1
        walks.pixels = walks.best  # frees memory for the next
        walks.pixels = self._paint(walks) if self.norm == "linf" else self._within(self._move(walks), walks.clean)

    def over(self, walks: Search) -> Tensor:
        return walks.iteration > self.proposals

    def inside(self, walks: Search) -> None:
        """Every proposal keeps the budget."""

    def best(self, walks: Search) -> tuple[Tensor, Tensor]:
        return walks.best, walks.best_loss

    def _stripes(self, clean: Tensor, seeds: Tensor, iteration: Tensor) -> Tensor:
        channels, width = clean.shape[1], clean.shape[3]
        signs = _signs(self.draw(seeds, iteration, channels * width)).view(-1, channels, 1, width)
        return (clean + signs * self.eps).clamp_(0.0, 1.0)

    def _tiles(self, clean: Tensor, seeds: Tensor, iteration: Tensor) -> Tensor:
        """Patterns side by side, each with a sign a channel; what does not fit into the image is cut off."""
        count, channels, height, width = clean.shape
        side = max(height // _TILES, 1)
        down, across, margin_ = height // side, width // side, max(height - _TILES * side, 0) // 2
        draws = self.draw(seeds, iteration, down * across * (1 + channels)).view(count, down, across, 1 + channels)
        pattern = windows.patterns((side,), self._power, clean.device)[0, :, 1:-1, 1:-1]
        tiles = pattern[(draws[..., 0] > 0).long()][:, :, :, None] * _signs(draws[..., 1:, None, None])
        grid = tiles.permute(0, 3, 1, 4, 2, 5).reshape(count, channels, down * side, across * side)
        right, bottom = width - margin_ - across * side, height - margin_ - down * side
        return self._within(F.pad(grid, (margin_, right, margin_, bottom)), clean)

    def _paint(self, walks: Search) -> Tensor:
        """L-inf: one window at +-eps. (A step of 2 eps, cut to the ball, leads there from everywhere in it.)"""
        _, channels, height, width = walks.clean.shape
        draws = self.draw(walks.seeds, walks.iteration, 2 + channels)
        side = windows.side(windows.level(walks.iteration - 1), height, width, odd=False)
        inside = windows.place(side, draws[:, :2], height, width).mask(height, width)
        painted = (walks.clean + _signs(draws[:, 2:, None, None]) * self.eps).clamp_(0.0, 1.0)
        return torch.lerp(walks.best, painted, _weight(inside), out=painted)

    def _move(self, walks: Search) -> Tensor:
        """L2 and L1 (alg. 3): the mass of two windows, and what is left of the budget, goes to the first of them. The
        perturbation, not yet on the budget."""
        _, channels, height, width = walks.clean.shape
        draws = self.draw(walks.seeds, walks.iteration, 5 + channels)
        level = windows.level(walks.iteration - 1)
        side = windows.side(level, height, width, odd=True)
        filled = windows.place(side, draws[:, :2], height, width)
        first = filled.mask(height, width).float()
        either = windows.place(side, draws[:, 2:4], height, width).mask(height, width).float().maximum(first)
        table = windows.patterns(windows.sides(height, width, odd=True), self._power, walks.clean.device)
        pattern = windows.draw_pattern(filled, 2 * level + (draws[:, 4] > 0), table, height, width)

        perturbation = walks.best - walks.clean
        mass = self._mass(perturbation)
        unused = (self.eps**self._power - mass.sum((1, 2, 3), keepdim=True)).clamp_min(0.0)
        windowed = mass.mul_(either).sum((2, 3), keepdim=True)
        del mass
        budget = self._root(unused / channels + windowed) * (channels if self.norm == "l1" else 1)
        fresh = perturbation * first
        fresh.div_(self._length(fresh, (2, 3)) + _TINY).add_(pattern * _signs(draws[:, 5:, None, None]))
        fresh.mul_(budget / (self._length(fresh, (2, 3)) + _TINY))
        return perturbation.mul_(1.0 - either).add_(fresh)

    def _within(self, perturbation: Tensor, clean: Tensor) -> Tensor:
        """Pixels on the sphere, then in [0, 1] (L2); the nearest in the set (L1)."""
        if self.norm == "l1":
            return shrink(perturbation, clean, self.eps * _WITHIN)
        scale = self.eps / (self._length(perturbation, (1, 2, 3)) + _TINY)
        return perturbation.mul_(scale).add_(clean).clamp_(0.0, 1.0)

    @property
    def _power(self) -> int:
        return 1 if self.norm == "l1" else 2

    def _mass(self, perturbation: Tensor) -> Tensor:
        return perturbation.abs() if self.norm == "l1" else perturbation.square()

    def _root(self, mass: Tensor) -> Tensor:
        return mass if self.norm == "l1" else mass.sqrt()

    def _length(self, perturbation: Tensor, dim: tuple[int, ...]) -> Tensor:
        length: Tensor = torch.linalg.vector_norm(perturbation, self._power, dim=dim, keepdim=True)
        return length


def _signs(draws: Tensor) -> Tensor:
    return (draws >= 0).float().mul_(2.0).sub_(1.0)


def _weight(mask: Tensor) -> Tensor:
    """For `lerp`, which is exact at weights 0 and 1; torch.where is not vectorised on a CPU."""
    return mask.float()
