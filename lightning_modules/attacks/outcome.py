"""What became of samples under attack, and the memory of their trials so far."""

from dataclasses import dataclass, fields
from typing import NamedTuple

from torch import Tensor

from lightning_modules.attacks.walks import Samples


@dataclass
class Outcome(Samples):
    """Samples that left the engine, and what became of them. R samples."""

    pixels: Tensor  # float32 (R, C, H, W): where the sample fell, or else the strongest found
    fallen: Tensor  # bool (R,)
    broken: Tensor  # bool (R,): it fell because an output was not a number
    zero_gradient: Tensor  # float32 (R,): see `Adversarial`; 0 from a method that asks for no gradient
    stage: Tensor  # int64 (R,): number of the method that felled it, -1 where none did

    @property
    def samples(self) -> Samples:
        """As they came in."""
        return Samples(**{each.name: getattr(self, each.name) for each in fields(Samples)})


class _Found(NamedTuple):
    """Of a sample's trials so far: the pixels (C, H, W) of highest loss, and the first share of zero gradients."""

    loss: float
    pixels: Tensor
    zero_gradient: float


class Strongest:
    """What the trials of samples found that are tried again, by the samples' numbers."""

    def __init__(self) -> None:
        self._found: dict[int, _Found] = {}

    def remember(self, row: Tensor, pixels: Tensor, losses: Tensor, zero_gradient: Tensor) -> None:
        """Takes in a trial: numbers (R,), pixels (R, C, H, W), losses (R,), shares of zero gradients (R,)."""
        columns = (row.tolist(), pixels, losses.tolist(), zero_gradient.tolist())
        for number, image, loss, share in zip(*columns, strict=True):
            before = self._found.get(number)
            if before is None:
                self._found[number] = _Found(loss, image.clone(), share)
            elif not loss <= before.loss:
                self._found[number] = before._replace(loss=loss, pixels=image.clone())

    def recall(self, outcome: Outcome, losses: Tensor) -> None:
        """Puts into the outcome of a last trial, whose losses are (R,), what those before it found; and forgets it."""
        if not self._found:
            return
        columns = (each.tolist() for each in (outcome.row, losses, outcome.fallen))
        for place, (number, loss, fell) in enumerate(zip(*columns, strict=True)):
            before = self._found.pop(number, None)
            if before is None:
                continue
            outcome.zero_gradient[place] = before.zero_gradient
            if not fell and loss <= before.loss:
                outcome.pixels[place] = before.pixels
