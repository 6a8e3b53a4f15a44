"""Negative free energy."""

from torch import Tensor

from lightning_modules.open_world.reference import Reference
from lightning_modules.open_world.score import Comparison, Score


class Energy(Score):
    """T logsumexp(logits / T) (Liu et al. 2020: minus the free energy), the logits at the model's own scale."""

    def __init__(self, temperature: float, reference: Reference) -> None:
        self.temperature, self.scale = temperature, reference.scale

    def __call__(self, seen: Comparison) -> Tensor:
        return self.temperature * (self.scale / self.temperature * seen.similarities).logsumexp(1)
