"""Robust accuracy: who falls to at least one of several attacks."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_modules.attacks import noise
from lightning_modules.attacks.attack import Adversarial, Attack, FallenFn, LossFn, ModelFn, misclassified
from lightning_modules.attacks.losses import cross_entropy
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
            return Trial(
                found, clean.new_zeros(len(rows))
            )  # losses of different attacks do not compare: the first stays

        return best_of(run, len(self.stages), clean)


@torch.no_grad()
def worst_case(
    model_fn: ModelFn,
    pixels: Tensor,
    labels: Tensor,
    attacks: Sequence[Attack],
    seeds: Tensor,
    loss_fn: LossFn = cross_entropy,
    fallen: FallenFn = misclassified,
) -> Adversarial:
    """Each sample's fate under all the attacks; robust accuracy is the share of those that stand.

    Samples that have fallen on clean pixels are not attacked and keep them (their `zero_gradient` is 0). So with the
    default `fallen` the pixels serve leaf accuracy only: what is asked of a superclass needs a `fallen` of that level.

    Args:
        labels: int64 (B,).
        attacks: in the order in which they run; at least one.

    Returns:
        `fallen` bool (B,) for clean or attacked, with the pixels that did it, or the first attack's where none did.
    """
    clean = pixels.detach().float()
    fell = fallen(model_fn(clean), labels)
    rows = (~fell).nonzero().squeeze(1)
    worst, zero_gradient = clean.clone(), clean.new_zeros(len(clean))
    if len(rows):
        found = Chain(tuple(attacks))(model_fn, clean[rows], labels[rows], loss_fn, seeds[rows], fallen)
        worst[rows], zero_gradient[rows], fell[rows] = found.pixels, found.zero_gradient, found.fallen
    return Adversarial(worst, zero_gradient, fell)
