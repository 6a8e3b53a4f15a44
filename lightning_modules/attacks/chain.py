"""Several attacks in a row, as AutoAttack has it: robust accuracy is what stands after the last."""

from dataclasses import dataclass

from torch import Tensor

from lightning_modules.attacks import noise
from lightning_modules.attacks.attack import Adversarial, Attack, FallenFn, LossFn, ModelFn
from lightning_modules.attacks.trials import Trial, best_of


@dataclass(frozen=True)
class Chain:
    """Attacks in order, each on the samples that the ones before left standing. See `Attack` for the call.

    Who stands is known only with `fallen`; without it the first attack alone runs.
    """

    stages: tuple[Attack, ...]

    def __call__(
        self,
        model_fn: ModelFn,
        pixels: Tensor,
        target: Tensor,
        loss_fn: LossFn,
        seeds: Tensor,
        fallen: FallenFn | None = None,
    ) -> Adversarial:
        if fallen is None:
            return self.stages[0](model_fn, pixels, target, loss_fn, seeds)
        clean = pixels.detach().float()

        def run(rows: Tensor, number: int) -> Trial:
            own = noise.derive(seeds[rows], number)
            found = self.stages[number](model_fn, clean[rows], target[rows], loss_fn, own, fallen)
            # Losses of different attacks do not compare: where none fells a sample, the first one's pixels stay.
            return Trial(found, clean.new_zeros(len(rows)))

        return best_of(run, len(self.stages), clean)
