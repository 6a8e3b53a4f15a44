"""Carlini & Wagner's attacks: the smallest L2 perturbation, and the margin under an L-inf budget."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lightning_modules.attacks import noise
from lightning_modules.attacks.attack import LossFn
from lightning_modules.attacks.losses import margin
from lightning_modules.attacks.method import Answer
from lightning_modules.attacks.projection import direction_, project_, uniform_start
from lightning_modules.attacks.walks import Samples, Walks

_INSIDE = 0.999999  # the original's: keeps the codes of pixels 0 and 1 finite
_FIRST_DECAY, _SECOND_DECAY, _TINY = 0.9, 0.999, 1e-8  # Adam's (Kingma & Ba 2015)
_GROWTH = 10.0  # of the constant, until one succeeds
_LOOKS = 10  # how often a round is asked whether it still gets anywhere


@dataclass
class Descent(Walks):
    """B searches for a small perturbation, each at its own iteration and round. `pixels` = (tanh(code) + 1) / 2."""

    code: Tensor  # float32 (B, C, H, W), as the next three
    first: Tensor  # Adam's mean of the gradients with respect to the code, and of their squares
    second: Tensor
    best: Tensor
    best_length: Tensor  # float32 (B,), as the next five; infinite until a perturbation succeeds within the budget
    best_loss: Tensor
    constant: Tensor  # weight of the margin
    failed: Tensor  # largest constant without success, below which the search does not return
    succeeded: Tensor  # smallest constant with success; infinite until there is one
    checked: Tensor  # objective at the last look
    hit: Tensor  # bool (B,): the round has succeeded
    iteration: Tensor  # int64 (B,), of the round
    round: Tensor  # int64 (B,)

    @classmethod
    def begin(cls, samples: Samples, constant: float) -> "Descent":
        """At the clean pixels, nothing evaluated yet."""
        clean, zero, none = samples.clean, torch.zeros_like(samples.row), torch.zeros_like(samples.clean)
        code = _encode(clean)
        infinite = clean.new_full((len(clean),), math.inf)
        return cls(
            row=samples.row,
            clean=clean,
            target=samples.target,
            pixels=_decode(code),
            code=code,
            first=none,
            second=none,
            best=clean,
            best_length=infinite,
            best_loss=-infinite,
            constant=torch.full_like(infinite, constant),
            failed=torch.zeros_like(infinite),
            succeeded=infinite,
            checked=infinite,
            hit=torch.zeros_like(zero, dtype=torch.bool),
            iteration=zero,
            round=zero,
        )

    @property
    def length(self) -> Tensor:
        """L2 length of the perturbation that is asked about, float32 (B,)."""
        return (self.pixels - self.clean).flatten(1).norm(dim=1)


@dataclass(frozen=True)
class CWL2:
    """Descent on |perturbation|^2 - constant * min(margin, confidence) with Adam, in a space where every point is an
    image (Carlini & Wagner 2017, sec. V-VI). A `Method`.

    The constant is searched for, by tens and then by halves, in rounds that begin at the clean pixels; a round ends
    early where its objective stalls, as the original's does, but sample by sample. Without a judge `best` is the
    smallest perturbation found within `eps` that succeeds, or else the one of largest margin within `eps`; with
    eps = infinity that is the minimum-norm attack. With a judge a sample leaves at its first success within `eps`.
    Targets are labels, int64 (B,); the loss is the margin.

    eps            L2 radius, in units of the pixel range [0, 1].
    steps          questions of a round; the first is about the clean pixels.
    search_steps   rounds.
    learning_rate  Adam's, of the code atanh(2 * pixels - 1).
    constant       of the first round.
    confidence     margin, in logits, beyond which it succeeds.
    """

    eps: float
    steps: int = 100
    search_steps: int = 9
    learning_rate: float = 0.01
    constant: float = 1e-3
    confidence: float = 0.0

    needs_gradient: ClassVar[tuple[bool, ...]] = (True,)
    targeted: ClassVar = False

    @property
    def queries(self) -> int:
        return self.steps * self.search_steps

    def trials(self, classes: int) -> int:
        return 1

    def begin(self, samples: Samples) -> Descent:
        return Descent.begin(samples, self.constant)

    def loss(self, outputs: Tensor, walks: Descent, loss_fn: LossFn) -> Tensor:
        return margin(outputs, walks.target)

    def advance(self, walks: Descent, answer: Answer) -> None:
        hit = ~(answer.losses <= self.confidence)  # a margin that is not a number is a success: the sample is broken
        self._keep(walks, answer.losses, hit)
        if answer.gradient is None:
            return
        objective = walks.length.square() - walks.constant * answer.losses.clamp_max(self.confidence)
        walks.hit = walks.hit | hit
        self._descend(walks, answer.gradient.masked_fill(_images(hit), 0.0))
        ended = self._stalled(walks, objective) | (walks.iteration >= self.steps)
        self._next_round(walks, ended & ~self.over(walks))
        walks.pixels = torch.where(_images(self.over(walks)), walks.pixels, _decode(walks.code))

    def over(self, walks: Descent) -> Tensor:
        return walks.round >= self.search_steps

    def inside(self, walks: Descent) -> Tensor:
        return walks.length <= self.eps

    def best(self, walks: Descent) -> tuple[Tensor, Tensor]:
        return walks.best, walks.best_loss

    def _keep(self, walks: Descent, losses: Tensor, hit: Tensor) -> None:
        """The smallest success within the budget; until there is one, the largest margin."""
        length = walks.length
        closer = hit & (length < walks.best_length)
        stronger = walks.best_length.isinf() & (losses > walks.best_loss)
        better = (closer | stronger) & (length <= self.eps)
        walks.best = torch.where(_images(better), walks.pixels, walks.best)
        walks.best_loss = torch.where(better, losses, walks.best_loss)
        walks.best_length = torch.where(better & hit, length, walks.best_length)

    def _descend(self, walks: Descent, pull: Tensor) -> None:
        """One step of Adam; `pull` is the margin's gradient with respect to the pixels, 0 beyond the confidence."""
        walks.iteration = walks.iteration + 1
        slope = 2.0 * walks.pixels * (1.0 - walks.pixels)  # of the pixels, with respect to the code
        gradient = (2.0 * (walks.pixels - walks.clean) - _images(walks.constant) * pull).mul_(slope)
        walks.first = torch.lerp(gradient, walks.first, _FIRST_DECAY)
        walks.second = torch.lerp(gradient.square_(), walks.second, _SECOND_DECAY)
        age = _images(walks.iteration)
        mean, square = walks.first / (1 - _FIRST_DECAY**age), walks.second / (1 - _SECOND_DECAY**age)
        walks.code = walks.code - self.learning_rate * mean / square.sqrt_().add_(_TINY)

    def _stalled(self, walks: Descent, objective: Tensor) -> Tensor:
        """Where a tenth of the round has brought the objective down by less than a ten-thousandth."""
        due = (walks.iteration - 1) % max(self.steps // _LOOKS, 1) == 0
        stalled = due & (objective > walks.checked * 0.9999)
        walks.checked = torch.where(due, objective, walks.checked)
        return stalled

    def _next_round(self, walks: Descent, ended: Tensor) -> None:
        """The next constant: ten times this one until one succeeds, then halfway between success and failure."""
        walks.succeeded = torch.where(ended & walks.hit, walks.constant, walks.succeeded)
        walks.failed = torch.where(ended & ~walks.hit, walks.constant, walks.failed)
        halfway = (walks.failed + walks.succeeded) / 2
        following = torch.where(walks.succeeded.isinf(), walks.constant * _GROWTH, halfway)
        walks.constant = torch.where(ended, following, walks.constant)
        walks.round, again = walks.round + ended, _images(ended)
        walks.iteration, walks.hit = walks.iteration.masked_fill(ended, 0), walks.hit & ~ended
        walks.checked = walks.checked.masked_fill(ended, math.inf)
        walks.code = torch.where(again, _encode(walks.clean), walks.code)
        walks.first, walks.second = walks.first.masked_fill(again, 0.0), walks.second.masked_fill(again, 0.0)


@dataclass
class Climb(Walks):
    """B walks under a budget, each at an iteration of its own."""

    best: Tensor  # float32 (B, C, H, W)
    best_loss: Tensor  # float32 (B,)
    iteration: Tensor  # int64 (B,)


@dataclass(frozen=True)
class CWLinf:
    """Projected sign ascent on the margin, which papers on robust CLIP call CW (Madry et al. 2018, fig. 6). A `Method`.

    One random start. Those papers judge the last iterate only; here every iterate is judged, and without a judge `best`
    is the one of largest margin. Targets are labels, int64 (B,).

    eps, step  in units of the pixel range [0, 1].
    """

    eps: float
    step: float
    steps: int = 100

    needs_gradient: ClassVar[tuple[bool, ...]] = (True,)
    targeted: ClassVar = False

    @property
    def queries(self) -> int:
        return self.steps + 1

    def trials(self, classes: int) -> int:
        return 1

    def begin(self, samples: Samples) -> Climb:
        start = uniform_start(samples.clean, noise.derive(samples.seeds, samples.trial), self.eps, "linf")
        lowest = start.new_full((len(start),), -math.inf)
        return Climb(samples.row, samples.clean, samples.target, start, start, lowest, torch.zeros_like(samples.row))

    def loss(self, outputs: Tensor, walks: Climb, loss_fn: LossFn) -> Tensor:
        return margin(outputs, walks.target)

    def advance(self, walks: Climb, answer: Answer) -> None:
        better = answer.losses > walks.best_loss
        walks.best = torch.where(_images(better), walks.pixels, walks.best)
        walks.best_loss = torch.where(better, answer.losses, walks.best_loss)
        walks.iteration = walks.iteration + 1
        if answer.gradient is not None:
            moved = direction_(answer.gradient, "linf").mul_(self.step).add_(walks.pixels)
            moved = project_(moved, walks.clean, self.eps, "linf")
            walks.pixels = torch.where(_images(self.over(walks)), walks.pixels, moved)

    def over(self, walks: Climb) -> Tensor:
        return walks.iteration >= self.queries

    def inside(self, walks: Climb) -> None:
        """Every point of the walk is projected on the budget."""

    def best(self, walks: Climb) -> tuple[Tensor, Tensor]:
        return walks.best, walks.best_loss


def _encode(pixels: Tensor) -> Tensor:
    return ((2.0 * pixels - 1.0) * _INSIDE).atanh_()


def _decode(code: Tensor) -> Tensor:
    return code.tanh().add_(1.0).div_(2.0)


def _images(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1)
