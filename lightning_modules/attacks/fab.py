"""Fast adaptive boundary attack, targeted."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from configs.schema.attack import AnyNorm
from lightning_modules.attacks import noise
from lightning_modules.attacks.apgd import ranked_class
from lightning_modules.attacks.attack import LossFn, misclassified
from lightning_modules.attacks.hyperplane import length, shortest_move
from lightning_modules.attacks.losses import margin, targeted_margin
from lightning_modules.attacks.method import Answer
from lightning_modules.attacks.walks import Samples, Walks, in_parts

_SHORTEST = 1e-8  # as in AutoAttack's reference: two moves of length 0 weigh the same


@dataclass
class BoundaryWalks(Walks):
    """B walks along the boundary between the label and a class aimed at."""

    aim: Tensor  # int64 (B,)
    iteration: Tensor  # int64 (B,): steps whose end the model has seen
    stepped: Tensor  # bool (B,): `pixels` are the end of a step, and not yet checked
    best: Tensor  # float32 (B, C, H, W): of the ends within the budget the most misclassified, at first the clean image
    best_margin: Tensor  # float32 (B,)


@dataclass(frozen=True)
class TargetedFAB:
    """FAB-T (Croce & Hein 2020, "Minimally distorted adversarial examples with a fast adaptive boundary attack"), as
    AutoAttack's reference has it. A `Method`. Targets are labels, int64 (B,), and the loss is the targeted margin.

    A step goes onto the boundary's linearisation, beyond it, and a little towards the clean image; the model is asked
    about its end, without a gradient, since nearly every end is adversarial and the walk then goes back towards the
    clean image before the next step.

    An end of a step counts if it is within the radius; points on the way back do not, as in the reference.

    eps        in units of the pixel range [0, 1].
    restarts   of each target class; the first starts at the clean image, the others at random, half a radius away.
    targets    how many classes are aimed at, best clean logit first; at most the number of classes minus 1.
    alpha_max  largest weight of the clean image's projection against the current point's.
    eta        overshoot: a move's length, in distances to the hyperplane.
    beta       what the way back leaves of an adversarial perturbation.
    """

    norm: AnyNorm
    eps: float
    steps: int = 100
    restarts: int = 1
    targets: int = 9
    alpha_max: float = 0.1
    eta: float = 1.05
    beta: float = 0.9

    needs_gradient: ClassVar[tuple[bool, ...]] = (True, False)
    targeted: ClassVar = True

    @property
    def queries(self) -> int:
        return 2 * self.steps

    def trials(self, classes: int) -> int:
        return min(self.targets, classes - 1) * self.restarts

    def begin(self, samples: Samples) -> BoundaryWalks:
        return self.walks(samples, aim=ranked_class(samples.outputs, 1 + samples.trial // self.restarts))

    def walks(self, samples: Samples, aim: Tensor) -> BoundaryWalks:
        """At their starts, nothing asked yet; aim int64 (B,)."""
        return BoundaryWalks(
            row=samples.row,
            clean=samples.clean,
            target=samples.target,
            pixels=self.start(samples),
            aim=aim,
            iteration=torch.zeros_like(samples.row),
            stepped=torch.zeros_like(samples.row, dtype=torch.bool),
            best=samples.clean.clone(),
            best_margin=margin(samples.outputs, samples.target),
        )

    def start(self, samples: Samples) -> Tensor:
        """The clean image, float32 (B, C, H, W), or for a restart a random point eps / 2 away."""
        if self.restarts == 1:
            return samples.clean
        sampler = noise.uniform if self.norm == "linf" else noise.normal
        draw = sampler(noise.derive(samples.seeds, samples.trial), samples.clean.shape[1:])
        scale = 0.5 * self.eps / length(draw, self.norm)
        started = (samples.clean + draw * _images(scale)).clamp_(0.0, 1.0)
        return torch.where(_images(samples.trial % self.restarts == 0), samples.clean, started)

    def loss(self, outputs: Tensor, walks: BoundaryWalks, loss_fn: LossFn) -> Tensor:
        return targeted_margin(outputs, torch.stack([walks.target, walks.aim], dim=1))

    def advance(self, walks: BoundaryWalks, answer: Answer) -> None:
        over = self.over(walks)
        if answer.gradient is None:
            onward = self._check(walks, answer, over)
        else:
            onward = self.step(walks, answer.losses, answer.gradient)
        walks.pixels = torch.where(_images(over), walks.pixels, onward, out=onward)
        walks.stepped = ~over & (answer.gradient is not None)

    def _check(self, walks: BoundaryWalks, answer: Answer, over: Tensor) -> Tensor:
        """Takes in whether the ends of steps are adversarial; the way back where they are."""
        self._remember(walks, margin(answer.outputs, walks.target))
        walks.iteration = walks.iteration + ~over
        left = torch.where(misclassified(answer.outputs, walks.target), self.beta, 1.0)  # of the perturbation
        return torch.lerp(walks.clean, walks.pixels, _images(left))

    def step(self, walks: BoundaryWalks, height: Tensor, gradient: Tensor) -> Tensor:
        """The end of a step (eq. 6 to 9) for the targeted margin's value (B,) and gradient (B, C, H, W) at `pixels`; in
        the place of the gradient."""
        height = height.nan_to_num(nan=0.0)  # no boundary in sight
        return in_parts(self._end, gradient, walks.pixels, walks.clean, height)

    def _end(self, gradient: Tensor, pixels: Tensor, clean: Tensor, height: Tensor) -> Tensor:
        here, home, normal = pixels.flatten(1), clean.flatten(1), gradient.flatten(1)
        from_here = shortest_move(here, normal, height, self.norm)
        from_clean = shortest_move(home, normal, height + (normal * (home - here)).sum(1), self.norm)
        near, far = (length(move, self.norm).clamp_min_(_SHORTEST) for move in (from_here, from_clean))
        weight = (near / (near + far)).clamp_max_(self.alpha_max)[:, None]
        end = torch.lerp(here + self.eta * from_here, home + self.eta * from_clean, weight)
        return end.clamp_(0.0, 1.0).view_as(pixels)

    def over(self, walks: BoundaryWalks) -> Tensor:
        return walks.iteration >= self.steps

    def inside(self, walks: BoundaryWalks) -> Tensor:
        """Ends of steps within the radius, and the clean image itself."""
        return length(walks.pixels - walks.clean, self.norm) <= self.eps * walks.stepped

    def best(self, walks: BoundaryWalks) -> tuple[Tensor, Tensor]:
        """The most misclassified of the ends within the radius, and its margin; margins of all trials compare."""
        return walks.best, walks.best_margin

    def _remember(self, walks: BoundaryWalks, margins: Tensor) -> None:
        better = self.inside(walks) & (margins > walks.best_margin)
        torch.where(_images(better), walks.pixels, walks.best, out=walks.best)
        walks.best_margin = torch.where(better, margins, walks.best_margin)


def _images(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1)
