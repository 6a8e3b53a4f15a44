"""The open world: how much an image is of any class at all. Scores, higher = more in-distribution, and vaccination."""

from lightning_modules.open_world.mcm import mcm
from lightning_modules.open_world.negatives import Negatives
from lightning_modules.open_world.reference import Reference
from lightning_modules.open_world.scores import Scores, needs_features

__all__ = ["Negatives", "Reference", "Scores", "mcm", "needs_features"]
