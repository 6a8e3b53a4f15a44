"""Open-world scores. Each maps similarities (B, N), cosines as a rule, and a temperature to (B,): higher = more
in-distribution."""

from collections.abc import Callable

from torch import Tensor

from lightning_modules.open_world.mcm import mcm

__all__ = ["SCORES", "Score", "mcm"]

Score = Callable[[Tensor, float], Tensor]

SCORES: dict[str, Score] = {"mcm": mcm}
"""Scores by their names in the configuration."""
