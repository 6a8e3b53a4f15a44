"""AutoPGD, untargeted and targeted."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from configs.errors import ConfigError
from lightning_modules.attacks import noise
from lightning_modules.attacks.ascent import Ascent, Schedule
from lightning_modules.attacks.attack import LossFn
from lightning_modules.attacks.losses import targeted_dlr
from lightning_modules.attacks.method import Answer
from lightning_modules.attacks.projection import Norm, boundary_start
from lightning_modules.attacks.walks import Samples


@dataclass(frozen=True)
class APGD:
    """AutoPGD (Croce & Hein 2020), as AutoAttack's reference has it for L-inf and L2. A `Method`.

    A trial asks steps + 1 questions, of which the last needs no gradient.

    eps       in units of the pixel range [0, 1].
    restarts  trials, each from a random start of its own.
    own_loss  what is raised; None is the loss that the attack is called with.
    """

    norm: Norm
    eps: float
    steps: int = 100
    restarts: int = 1
    own_loss: LossFn | None = None

    needs_gradient: ClassVar[tuple[bool, ...]] = (True,)
    targeted: ClassVar = False

    @property
    def queries(self) -> int:
        return self.steps + 1

    def trials(self, classes: int) -> int:
        return self.restarts

    def begin(self, samples: Samples) -> Ascent:
        return Ascent.begin(samples, self.start(samples), samples.row, self.eps, Schedule.of(self.steps))

    def start(self, samples: Samples) -> Tensor:
        """Random starting points, float32 (B, C, H, W)."""
        return boundary_start(samples.clean, noise.derive(samples.seeds, samples.trial), self.eps, self.norm)

    def loss(self, outputs: Tensor, walks: Ascent, loss_fn: LossFn) -> Tensor:
        return (self.own_loss or loss_fn)(outputs, walks.target)

    def advance(self, walks: Ascent, answer: Answer) -> None:
        walks.advance(answer, self.eps, self.norm, Schedule.of(self.steps))

    def over(self, walks: Ascent) -> Tensor:
        return walks.iteration >= self.steps

    def inside(self, walks: Ascent) -> None:
        """Every point of the walk is projected on the budget."""

    def best(self, walks: Ascent) -> tuple[Tensor, Tensor]:
        return walks.best, walks.best_loss


@dataclass(frozen=True)
class TargetedAPGD(APGD):
    """AutoPGD towards each of the classes that come after the first in the clean logits (Croce & Hein 2020, sec. 5).

    Targets are labels, int64 (B,), and the loss is targeted DLR, or the targeted margin below 4 classes.

    restarts  of each target class.
    targets   how many classes are aimed at, best clean logit first; at most the number of classes minus 1.
    """

    targets: int = 9

    targeted: ClassVar = True

    def trials(self, classes: int) -> int:
        return min(self.targets, classes - 1) * self.restarts

    def begin(self, samples: Samples) -> Ascent:
        aim = ranked_class(samples.outputs, 1 + samples.trial // self.restarts)
        return Ascent.begin(samples, self.start(samples), aim, self.eps, Schedule.of(self.steps))

    def loss(self, outputs: Tensor, walks: Ascent, loss_fn: LossFn) -> Tensor:
        return targeted_dlr(outputs, torch.stack([walks.target, walks.aim], dim=1))


def ranked_class(outputs: Tensor, rank: Tensor) -> Tensor:
    """The class at a rank, int64 (B,), of outputs (B, K); rank 0 is the best.

    Raises:
        ConfigError: there is one class only, so none to aim at.
    """
    if outputs.shape[1] < 2:
        raise ConfigError(
            "a targeted attack aims at a class beside the label, but the model has 1; it needs at least 2"
        )
    order = outputs.argsort(dim=1, descending=True)
    return order.gather(1, rank[:, None]).squeeze(1)
