"""Negative labels."""

import torch
from torch import Tensor

from configs.schema import scores as schema
from lightning_modules.open_world.reference import Reference
from lightning_modules.open_world.score import Comparison, Score, exact
from lightning_modules.open_world.sweep import Softmax


class NegLabel(Score):
    """The classes' share of the softmax over classes and one group of negatives, mean over the groups (Jiang et al.
    2024): in [0, 1].

    Negatives are dealt out to the groups in turn, all of them. The authors' code permutes them and leaves the remainder
    of the division out; where there is none, this is their score with another permutation.
    """

    def __init__(self, setting: schema.NegLabel, reference: Reference) -> None:
        self.bank = setting.bank
        self.softmax = Softmax(setting.temperature, min(setting.groups, len(reference.bank(setting.bank))))
        self.asks = {setting.bank: [self.softmax]}

    def __call__(self, seen: Comparison) -> Tensor:
        own = (seen.similarities / self.softmax.temperature).logsumexp(1)
        return share(own, seen.bank(self.bank).logsumexp(self.softmax))


def share(classes: Tensor, groups: Tensor) -> Tensor:
    """Mean over G groups of exp(classes) / (exp(classes) + exp(group)): (B,) of (B,) and (B, G)."""
    return torch.sigmoid(classes[:, None] - exact(groups)).mean(1)
