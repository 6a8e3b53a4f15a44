"""Several class trees over the same leaves, and one numbering of all their classes."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from configs.errors import DataError, did_you_mean
from lightning_modules.hierarchy.tree import Tree


@dataclass(frozen=True)
class Level:
    """The classes of one level of one tree.

    tree       its name; None for the leaves, which all trees share and which are number 0.
    number     of the level in its tree.
    start      place of its first class in the forest's order of nodes.
    ancestors  per leaf, the index in `names` of its class.
    """

    tree: str | None
    number: int
    names: tuple[str, ...]
    start: int
    ancestors: tuple[int, ...]

    @property
    def label(self) -> str:
        """What it is called in figures: `leaf`, or TREE.NUMBER."""
        return "leaf" if self.tree is None else f"{self.tree}.{self.number}"

    @property
    def size(self) -> int:
        """How many classes it has."""
        return len(self.names)

    @property
    def stop(self) -> int:
        """One past the place of its last class in the forest's order."""
        return self.start + self.size

    @property
    def nodes(self) -> slice:
        """Its classes among all nodes of the forest."""
        return slice(self.start, self.stop)


@dataclass(frozen=True)
class Forest:
    """Trees over the same leaves. Its nodes are the leaves, then the classes of each tree level by level, so that one
    tensor of texts (size, D) serves all levels. A level with one class has nothing to tell apart, and is no level here.

    Raises:
        DataError: no leaf, two leaves or two trees of one name, a tree over other leaves or in another order.
    """

    leaves: tuple[str, ...]
    trees: tuple[Tree, ...] = ()

    def __post_init__(self) -> None:
        for what, names in (("leaves", self.leaves), ("trees", [tree.name for tree in self.trees])):
            repeated = [name for name, count in Counter(names).items() if count > 1]
            if repeated:
                raise DataError(f"two {what} of a forest are called {repeated[0]!r}; rename one of them")
        if not self.leaves:
            raise DataError("a forest has no leaves; give it the class names of the data set")
        for tree in self.trees:
            _check_leaves(tree, self.leaves)

    @cached_property
    def levels(self) -> tuple[Level, ...]:
        """The leaves, then each tree's levels from its lowest up."""
        levels = [Level(None, 0, self.leaves, 0, tuple(range(len(self.leaves))))]
        for tree in self.trees:
            for number in _contrasting(tree):
                ancestors = tuple(tree.ancestors(number).tolist())
                levels.append(Level(tree.name, number, tree.levels[number], levels[-1].stop, ancestors))
        return tuple(levels)

    @cached_property
    def lineages(self) -> Tensor:
        """int64 (levels, leaves): the place of each leaf's class among the nodes, at every level."""
        return torch.tensor([[level.start + each for each in level.ancestors] for level in self.levels])

    def levels_of(self, tree: Tree) -> tuple[Level, ...]:
        """The leaves, then the levels of one tree from its lowest up."""
        return tuple(level for level in self.levels if level.tree in (None, tree.name))

    @property
    def skipped(self) -> tuple[tuple[str, int], ...]:
        """Tree and number of each level that is left out because it has one class."""
        kept = {(level.tree, level.number) for level in self.levels}
        every = [(tree.name, number) for tree in self.trees for number in range(1, tree.depth + 1)]
        return tuple(level for level in every if level not in kept)

    @property
    def size(self) -> int:
        """How many nodes there are: the classes of all levels."""
        return self.levels[-1].stop

    @property
    def names(self) -> tuple[str, ...]:
        """Of all nodes, in order."""
        return tuple(name for level in self.levels for name in level.names)

    def only(self, names: Sequence[str]) -> "Forest":
        """The same leaves with these trees alone, in this order. Raises DataError where there is none of a name."""
        return Forest(self.leaves, tuple(self.tree(name) for name in names))

    def tree(self, name: str) -> Tree:
        """The tree of this name, or a DataError that lists the ones there are."""
        for tree in self.trees:
            if tree.name == name:
                return tree
        raise DataError(f"the forest has no tree {name!r}; {did_you_mean(name, [tree.name for tree in self.trees])}")


def _contrasting(tree: Tree) -> list[int]:
    return [number for number in range(1, tree.depth + 1) if len(tree.levels[number]) > 1]


def _check_leaves(tree: Tree, leaves: Sequence[str]) -> None:
    found = tree.levels[0]
    if len(found) != len(leaves):
        raise DataError(f"tree {tree.name!r} has {len(found)} leaves for {len(leaves)} classes; give it one a class")
    for place, (leaf, wanted) in enumerate(zip(found, leaves, strict=True)):
        if leaf != wanted:
            raise DataError(
                f"leaf {place} of tree {tree.name!r} is {leaf!r} where the data set has {wanted!r}; give it the data "
                "set's classes in their order"
            )
