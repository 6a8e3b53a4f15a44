"""Hyperbolic geometry: the Poincare ball, and the margins of classifiers in it."""

from lightning_modules.geometry.ball import PoincareBall, reach
from lightning_modules.geometry.margins import euclidean_margin, hyperbolic_margin

__all__ = ["PoincareBall", "euclidean_margin", "hyperbolic_margin", "reach"]
