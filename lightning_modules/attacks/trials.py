"""Several trials of one adversary (restarts, target classes, stages), each on the samples that still stand."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_modules.attacks.attack import Adversarial


class Trial(NamedTuple):
    """What one trial found for the rows it was given: an `Adversarial`, and the losses (B,) at its pixels."""

    found: Adversarial
    losses: Tensor


def best_of(run: Callable[[Tensor, int], Trial], trials: int, clean: Tensor) -> Adversarial:
    """Keeps, per sample, the first trial in which it falls, or else the one of highest loss.

    Args:
        run: (rows int64 (R,) into the batch, number of the trial) -> the trial's result for those rows.
        clean: float32 (B, C, H, W).
    """
    pixels, zero_gradient = clean.clone(), clean.new_zeros(len(clean))
    losses, fallen = clean.new_full((len(clean),), float("-inf")), clean.new_zeros(len(clean), dtype=torch.bool)
    for number in range(trials):
        rows = (~fallen).nonzero().squeeze(1)
        if not len(rows):
            break
        trial = run(rows, number)
        better = trial.found.fallen | ~(trial.losses <= losses[rows])  # a loss that is not a number counts as better
        kept = rows[better]
        pixels[kept], losses[kept] = trial.found.pixels[better], trial.losses[better]
        fallen[kept] = trial.found.fallen[better]
        if number == 0:
            zero_gradient = trial.found.zero_gradient
    return Adversarial(pixels, zero_gradient, fallen)
