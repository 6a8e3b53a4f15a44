"""Tiny networks for the tests of attacks. Double precision inside, so that a batch's size can't move a sign."""

import torch
from torch import Tensor, nn

SHAPE = (3, 8, 8)


class Doubled(nn.Module):
    """A network in float64 that takes pixels of any float type."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network.double()

    def forward(self, pixels: Tensor) -> Tensor:
        return self.network(pixels.double())


def convolutional(classes: int, seed: int = 0) -> nn.Module:
    """Random weights, logits centred on random images: many classes are predicted, and some samples are close calls."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = [nn.Conv2d(3, 8, 3, stride=2), nn.GELU(), nn.Flatten(), nn.Linear(72, classes)]
        model = Doubled(nn.Sequential(*layers)).eval()
    with torch.no_grad():
        layers[-1].bias -= model(images(64, seed=9)).mean(0)
    return model


def linear(classes: int, seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Doubled(nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, classes))).eval()


def images(count: int, seed: int = 0, low: float = 0.0, high: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return low + (high - low) * torch.rand(count, *SHAPE, generator=generator)


def seeds(count: int) -> Tensor:
    return torch.arange(100, 100 + count)
