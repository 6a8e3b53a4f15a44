"""One interface for all scores."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property

import torch.nn.functional as F
from torch import Tensor

from lightning_modules.open_world.reference import Reference
from lightning_modules.open_world.sweep import Softmax, Summary, Sweep


class Comparison:
    """A batch of embeddings (B, D), compared with classes and banks once, when the first score asks for it."""

    def __init__(self, embeddings: Tensor, reference: Reference, sweeps: Mapping[str, Sweep]) -> None:
        self.embeddings = embeddings
        self._reference, self._sweeps = reference, sweeps
        self._summaries: dict[str, Summary] = {}

    @cached_property
    def images(self) -> Tensor:
        """Points (B, D) of the head."""
        return self._reference.head.images(self.embeddings)

    @cached_property
    def similarities(self) -> Tensor:
        """Of images and classes, (B, K), see `exact`."""
        return exact(self._reference.head.similarities(self.images, self._reference.classes))

    @cached_property
    def features(self) -> Tensor:
        """Unit embeddings (B, D), see `exact`."""
        return F.normalize(exact(self.embeddings), dim=-1)

    def bank(self, name: str) -> Summary:
        """What was asked about a bank."""
        if name not in self._summaries:
            self._summaries[name] = self._sweeps[name](self.images, self._reference.bank(name).points)
        return self._summaries[name]


class Score(ABC):
    """Higher = more in-distribution, in float64 where the device has it. Each sample by itself, and differentiable in
    the embeddings, where the class does not say otherwise."""

    asks: Mapping[str, Sequence[Softmax]] = {}
    """What is to be known about which banks."""

    @abstractmethod
    def __call__(self, seen: Comparison) -> Tensor:
        """(B,)."""


def exact(tensor: Tensor) -> Tensor:
    """In float64 where the device has it: float32 rounds the softmax of confident samples to 1, and ties them."""
    return tensor.float() if tensor.device.type == "mps" else tensor.double()
