"""Heads: image and text embeddings to logits."""

from lightning_modules.heads.cosine import CosineHead
from lightning_modules.heads.head import Head, classify
from lightning_modules.heads.hyperbolic import Entry, HyperbolicHead

__all__ = ["CosineHead", "Entry", "Head", "HyperbolicHead", "classify"]
