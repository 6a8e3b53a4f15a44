"""Attacks of one method. Radii and steps are in 1/255 of the pixel range, see `configs.schema.attack`."""

from dataclasses import dataclass
from typing import Literal

from configs.errors import FieldError
from configs.schema.checks import above, at_least, fraction, radius

Norm = Literal["linf", "l2"]
AnyNorm = Literal["linf", "l2", "l1"]


@dataclass(frozen=True)
class PGD:
    """Projected gradient ascent (Madry et al. 2018). Under L-inf FARE's own trainer is `momentum: 0`.

    loss  objective: the training objective's own inner loss, ce where a model is measured; embedding_l2 and
          embedding_cosine: away from the clean image's embedding, without a label, where a model is measured.
    """

    kind: Literal["pgd"] = "pgd"
    norm: Norm = "linf"
    eps_255: float = 8.0
    step_255: float = 2.0
    steps: int = 20
    restarts: int = 1
    momentum: float = 0.0
    random_start: bool = True
    loss: Literal["objective", "ce", "margin", "dlr", "embedding_l2", "embedding_cosine"] = "objective"

    def __post_init__(self) -> None:
        radius(self.norm, self.eps_255)
        above(0, step_255=self.step_255)
        at_least(1, restarts=self.restarts)
        fraction(momentum=self.momentum)
        if self.steps < 1:
            raise FieldError("steps", f"must be >= 1, got {self.steps}; use attack.kind=none for clean training")


@dataclass(frozen=True)
class APGD:
    """AutoPGD (Croce & Hein 2020); under L1 that of Croce & Hein (2021), which begins with larger radii.

    loss  ce: APGD-CE, dlr: APGD-DLR; others as PGD's.
    eot   forward passes that each gradient is the mean of, for models whose output is random.
    """

    kind: Literal["apgd"] = "apgd"
    norm: AnyNorm = "linf"
    eps_255: float = 8.0
    steps: int = 100
    restarts: int = 1
    loss: Literal["objective", "ce", "dlr", "margin", "embedding_l2", "embedding_cosine"] = "objective"
    eot: int = 1

    def __post_init__(self) -> None:
        radius(self.norm, self.eps_255)
        at_least(1, steps=self.steps, restarts=self.restarts, eot=self.eot)


@dataclass(frozen=True)
class TargetedAPGD:
    """APGD-T (Croce & Hein 2020): targeted DLR towards one class after the other, from the best clean logit down."""

    kind: Literal["apgd_t"] = "apgd_t"
    norm: AnyNorm = "linf"
    eps_255: float = 8.0
    steps: int = 100
    restarts: int = 1  # of each target
    targets: int = 9
    eot: int = 1

    def __post_init__(self) -> None:
        radius(self.norm, self.eps_255)
        at_least(1, steps=self.steps, restarts=self.restarts, targets=self.targets, eot=self.eot)


@dataclass(frozen=True)
class FAB:
    """Fast adaptive boundary attack (Croce & Hein 2020b): the smallest perturbation, which counts within the radius.

    targets  classes that are aimed at one after the other, from the best clean logit down: FAB-T. null: untargeted, to
             the nearest of all boundaries in each step, at the cost of a backward pass for every class.
    """

    kind: Literal["fab"] = "fab"
    norm: AnyNorm = "linf"
    eps_255: float = 8.0
    steps: int = 100
    restarts: int = 1  # of each target
    targets: int | None = 9

    def __post_init__(self) -> None:
        radius(self.norm, self.eps_255)
        at_least(1, steps=self.steps, restarts=self.restarts, targets=self.targets)


@dataclass(frozen=True)
class Square:
    """Square attack (Andriushchenko et al. 2020): random search on the margin, without gradients."""

    kind: Literal["square"] = "square"
    norm: AnyNorm = "linf"
    eps_255: float = 8.0
    queries: int = 5000
    restarts: int = 1

    def __post_init__(self) -> None:
        radius(self.norm, self.eps_255)
        at_least(1, queries=self.queries, restarts=self.restarts)


@dataclass(frozen=True)
class CW:
    """Carlini & Wagner (2017). linf: sign steps on the margin within the radius. l2: the smallest perturbation, by
    gradient descent on distance + constant x margin, which counts within the radius.

    step_255       linf: step size; null: a quarter of the radius.
    learning_rate  l2: of Adam, in the space where every point is a picture.
    search_steps   l2: rounds of the binary search for the constant, which begins with `constant`.
    confidence     margin, in logits, that is aimed at.
    """

    kind: Literal["cw"] = "cw"
    norm: Norm = "linf"
    eps_255: float = 8.0
    steps: int = 100
    step_255: float | None = None
    learning_rate: float = 0.01
    search_steps: int = 9
    constant: float = 1e-3
    confidence: float = 0.0

    def __post_init__(self) -> None:
        radius(self.norm, self.eps_255)
        above(0, step_255=self.step_255, learning_rate=self.learning_rate, constant=self.constant)
        at_least(1, steps=self.steps, search_steps=self.search_steps)
        at_least(0, confidence=self.confidence)


SingleAttack = APGD | TargetedAPGD | FAB | Square | CW
