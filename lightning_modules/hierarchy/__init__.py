"""Class hierarchies."""

from lightning_modules.hierarchy.tree import Tree

__all__ = ["Tree"]
