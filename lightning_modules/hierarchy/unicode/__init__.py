"""Unicode's groups of emoji, from which class trees are made. The licences are beside the table."""

from lightning_modules.hierarchy.unicode.emoji import unicode_tree

__all__ = ["unicode_tree"]
