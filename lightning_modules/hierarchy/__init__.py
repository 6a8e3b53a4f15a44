"""Class hierarchies: trees over the leaf classes, where they come from, and forests of them."""

from lightning_modules.hierarchy.build import build
from lightning_modules.hierarchy.forest import Forest, Level
from lightning_modules.hierarchy.tree import Tree

__all__ = ["Forest", "Level", "Tree", "build"]
