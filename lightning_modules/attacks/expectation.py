"""Expectation over transformation: gradients of randomised models."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from lightning_modules.attacks.attack import ModelFn, ask


@dataclass(frozen=True)
class Expectation:
    """Asks a randomised model several times, and averages the gradients (Athalye et al. 2018), as AutoAttack's `rand`.

    Called like `attack.ask`. The outputs and losses are those of the last draw, so that one draw decides whether a
    sample falls, and only one is made where no gradient is asked for. An attack that may look at many draws picks the
    lucky ones: AutoAttack's reference counts a success only if one further evaluation of the model agrees.

    A graph is freed before the next is built. What is random is the model's business, its generator included.

    draws  evaluations for one gradient; AutoAttack has 20.
    """

    draws: int = 20

    def __call__(
        self, model_fn: ModelFn, pixels: Tensor, loss: Callable[[Tensor], Tensor], gradient: bool = True
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        outputs, losses, total = ask(model_fn, pixels, loss, gradient)
        if total is None:
            return outputs, losses, None
        for _ in range(self.draws - 1):
            outputs, losses, found = ask(model_fn, pixels, loss)
            assert found is not None
            total += found
        return outputs, losses, total.div_(self.draws)
