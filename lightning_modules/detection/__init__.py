"""Measuring open-world scores: clean, without what names the unknown, and under attack."""

from lightning_modules.detection.evaluation import OpenWorldEvaluation, World

__all__ = ["OpenWorldEvaluation", "World"]
