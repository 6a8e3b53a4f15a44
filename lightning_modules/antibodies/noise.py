"""Antibodies that mean nothing."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from configs.schema.antibodies import RandomBank
from lightning_modules.antibodies.antibody import Antibody

FAMILY = "random"


def noise(source: RandomBank, class_names: Sequence[str]) -> list[Antibody]:
    """As many for each class, without a text."""
    return [Antibody(name, FAMILY, "", FAMILY) for name in class_names for _ in range(source.per_class)]


def uniform(count: int, dimensions: int, seed: int) -> Tensor:
    """Unit vectors float32 (count, dimensions), evenly distributed on the sphere."""
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(count, dimensions, generator=generator), dim=1)
