"""What images are compared with."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from configs.errors import ConfigError, did_you_mean
from lightning_modules.heads import CosineHead, Head
from lightning_modules.open_world.negatives import Negatives

if TYPE_CHECKING:
    from lightning_modules.open_world.immunity import Immunity


@dataclass(frozen=True, eq=False)
class Reference:
    """Everything on one device.

    head      places images and texts.
    classes   points (K, D) of the class texts.
    banks     negatives by the name of their bank.
    features  embeddings (M, D) of training images, unit vectors; None where no score needs them.
    labels    int64 (M,), their classes.
    immunity  of a vaccinated model.
    """

    head: Head
    classes: Tensor
    banks: Mapping[str, Negatives] = field(default_factory=dict)
    features: Tensor | None = None
    labels: Tensor | None = None
    immunity: "Immunity | None" = None

    @property
    def scale(self) -> float:
        """The model's factor of similarities in logits."""
        return float(torch.as_tensor(self.head.scale).detach())

    def bank(self, name: str) -> Negatives:
        """
        Raises:
            ConfigError: there is none of that name.
        """
        if name not in self.banks:
            raise ConfigError(
                f"a score needs the bank '{name}', and antibodies has none of that name; "
                f"{did_you_mean(name, self.banks)}"
            )
        return self.banks[name]

    def training(self, kind: str) -> tuple[Tensor, Tensor]:
        """Features and labels of training images.

        Raises:
            ConfigError: there are none.
        """
        if self.features is None or self.labels is None or not len(self.features):
            raise ConfigError(f"the score {kind} needs embeddings of training images, and there are none; leave it out")
        return self.features, self.labels

    def require_cosines(self, kind: str) -> None:
        """
        Raises:
            ConfigError: images and texts are not unit vectors in one space.
        """
        if not isinstance(self.head, CosineHead):
            raise ConfigError(
                f"the score {kind} is defined for cosines, and the model compares by hyperbolic distance; set "
                "evaluation.inference=cosine, or leave it out"
            )
