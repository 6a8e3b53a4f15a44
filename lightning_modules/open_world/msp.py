"""Maximum softmax probability."""

from torch import Tensor

from lightning_modules.open_world.mcm import mcm
from lightning_modules.open_world.reference import Reference
from lightning_modules.open_world.score import Comparison, Score


class MSP(Score):
    """max softmax(logits), at the model's own scale (Hendrycks & Gimpel 2017, section 2): in (0, 1]."""

    def __init__(self, reference: Reference) -> None:
        self.temperature = 1 / reference.scale

    def __call__(self, seen: Comparison) -> Tensor:
        return mcm(seen.similarities, self.temperature)
