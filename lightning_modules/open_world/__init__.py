"""The open world: how much an image is of any class at all. Scores, higher = more in-distribution, and vaccination."""

from collections.abc import Callable

from torch import Tensor

from lightning_modules.open_world.mcm import mcm
from lightning_modules.open_world.negatives import Negatives
from lightning_modules.open_world.reference import Reference
from lightning_modules.open_world.scores import Scores, needs_features

__all__ = ["SCORES", "Negatives", "Reference", "Scores", "mcm", "needs_features"]

SCORES: dict[str, Callable[[Tensor, float], Tensor]] = {"mcm": mcm}
"""Scores of similarities (B, N) and a temperature, by their names in the configuration."""
