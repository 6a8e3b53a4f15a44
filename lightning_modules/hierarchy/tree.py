"""A class hierarchy over the leaf classes of a data set."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from configs.errors import DataError
from lightning_modules.hierarchy.naming import told_apart


@dataclass(frozen=True)
class Tree:
    """Levels of classes, 0 = leaves, each class with one parent in the level above; the top level may have several.

    levels   names, per level.
    parents  per level but the last: the index in the next level of each class's parent.

    Raises:
        DataError: levels and parents that do not fit, a parent out of range, a class above the leaves without children.
    """

    name: str
    levels: tuple[tuple[str, ...], ...]
    parents: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        if not self.levels or len(self.parents) != len(self.levels) - 1:
            raise self._broken(
                f"{len(self.levels)} levels and {len(self.parents)} lists of parents", "one list fewer than levels"
            )
        for level, (names, parents) in enumerate(zip(self.levels, self.parents, strict=False)):
            above = self.levels[level + 1]
            if len(parents) != len(names):
                raise self._broken(
                    f"{len(parents)} parents for {len(names)} classes at level {level}", "one parent a class"
                )
            for child, parent in enumerate(parents):
                if not 0 <= parent < len(above):
                    raise self._broken(
                        f"parent {parent} of {names[child]!r} at level {level}", f"an index below {len(above)}"
                    )
            childless = set(range(len(above))) - set(parents)
            if childless:
                raise self._broken(f"no child of {above[min(childless)]!r} at level {level + 1}", "at least one each")

    @classmethod
    def from_paths(
        cls,
        name: str,
        paths: Sequence[Sequence[str]],
        names: Mapping[str, str],
        kinds: Mapping[str, str] | None = None,
    ) -> "Tree":
        """From the way of each leaf to the top. Levels list their classes in order of first appearance.

        Args:
            paths: per leaf, the id of the leaf and of its ancestors, nearest first; all of one length. A class may
                stand on several levels.
            names: id -> what the class is called. Two that share a name get longer ones, which no prompt confuses:
                "crane, a kind of wading bird".
            kinds: id -> id of what the class is a kind of, and so on upwards; None: its parent in `paths`.

        Raises:
            DataError: no leaf, a leaf that comes twice, paths of different lengths, a cycle, a class with two parents
                on one level, two classes that nothing tells apart.
        """
        if len({len(path) for path in paths}) != 1:
            raise DataError(f"tree {name!r} needs paths of one length, at least one; repeat the top of a shorter one")
        ids = [tuple(dict.fromkeys(level)) for level in zip(*paths, strict=True)]
        if len(ids[0]) < len(paths):
            repeated = Counter(path[0] for path in paths).most_common(1)[0][0]
            raise DataError(f"tree {name!r} has the leaf {names[repeated]!r} twice; leave one of them out")
        above = _parents(name, paths, names)
        if kinds is None:
            kinds = {child: parent for level in above for child, parent in level.items() if child != parent}
        called = told_apart(name, paths, names, kinds)
        places = [{node: place for place, node in enumerate(level)} for level in ids]
        return cls(
            name,
            tuple(tuple(called[node] for node in level) for level in ids),
            tuple(tuple(places[number + 1][level[node]] for node in ids[number]) for number, level in enumerate(above)),
        )

    @classmethod
    def from_dict(cls, name: str, tree: Mapping[str, Any]) -> "Tree":
        """From {"levels": [[names], ...], "parents": [[indices], ...]}, as a manifest has it."""
        levels, parents = tree.get("levels", ()), tree.get("parents", ())
        if not _nested(levels, str) or not _nested(parents, int):
            raise DataError(
                f'tree {name!r} is not a tree; write it as {{"levels": [[names], ...], "parents": [[indices], ...]}}'
            )
        return cls(name, tuple(map(tuple, levels)), tuple(map(tuple, parents)))

    def to_dict(self) -> dict[str, list[list[Any]]]:
        """The JSON form, which `from_dict` reads."""
        return {"levels": [list(names) for names in self.levels], "parents": [list(each) for each in self.parents]}

    @property
    def depth(self) -> int:
        """How many levels there are above the leaves."""
        return len(self.parents)

    def ancestors(self, level: int) -> Tensor:
        """int64 (leaves,): the class of each leaf at `level`; at 0, the leaf itself.

        Raises:
            DataError: the tree has no such level.
        """
        if not 0 <= level <= self.depth:
            raise self._broken(f"no level {level}", f"a level from 0 (leaves) to {self.depth}")
        classes = torch.arange(len(self.levels[0]))
        for parents in self.parents[:level]:
            classes = torch.tensor(parents, dtype=torch.int64)[classes]
        return classes

    def _broken(self, found: str, wanted: str) -> DataError:
        return DataError(f"tree {self.name!r} has {found}, and should have {wanted}")


def _parents(name: str, paths: Sequence[Sequence[str]], names: Mapping[str, str]) -> list[dict[str, str]]:
    """Per level but the last, the parent of each class."""
    above: list[dict[str, str]] = [{} for _ in paths[0][1:]]
    for path in paths:
        distinct = [node for node, before in zip(path, (None, *path), strict=False) if node != before]
        if len(set(distinct)) < len(distinct):
            raise DataError(f"tree {name!r} has a cycle above {names[path[0]]!r}; let no class be its own ancestor")
        for level, (child, parent) in zip(above, pairwise(path), strict=True):
            if level.setdefault(child, parent) != parent:
                raise DataError(
                    f"class {names[child]!r} of tree {name!r} has two parents, {names[level[child]]!r} and "
                    f"{names[parent]!r}; give it one"
                )
    return above


def _nested(value: Any, kind: type) -> bool:
    """Whether it is a list of lists of `kind`; a bool is no index."""
    return _is_list(value) and all(_is_list(row) and all(type(item) is kind for item in row) for row in value)


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)
