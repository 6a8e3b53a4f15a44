"""From ancestors in any number to a fixed number of levels. Each cut gives a class of a level one parent, because which
ancestor stands for the next level up depends on the class alone, and not on the leaf that one comes from."""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from math import ceil

from configs.schema.hierarchy import Cut

Path = tuple[str, ...]  # ids, the leaf first, then its ancestors, nearest first


def without_only_children(paths: Sequence[Path]) -> list[Path]:
    """Without the ancestors that have a single child: they hold the same leaves as that child.

    ImageNet's classes have 808 ancestors in WordNet 3.0, and 372 that branch.
    """
    children: dict[str, set[str]] = {}
    for path in paths:
        for child, parent in pairwise(path):
            children.setdefault(parent, set()).add(child)
    return [(path[0], *(node for node in path[1:] if len(children[node]) > 1)) for path in paths]


def cut(paths: Sequence[Path], levels: int, how: Cut) -> list[Path]:
    """The leaf and `levels` of its ancestors, of every path. The topmost is repeated where there are fewer.

    nearest      the nearest ancestors.
    equal_depth  level l is the nearest ancestor that is no further than 1 - l / (levels + 1) of the way from where all
                 paths meet to the deepest leaf below it.
    balanced     level l is the nearest ancestor of at least n ** (l / (levels + 1)) of the n leaves.
    """
    if how == "nearest":
        return [path[: levels + 1] + path[-1:] * (levels + 1 - len(path)) for path in paths]
    if how == "equal_depth":
        place = _places(paths)
        bounds = [1 - level / (levels + 1) for level in range(1, levels + 1)]
        return [_reaching(path, bounds, lambda node, bound: place[node] <= bound + 1e-9) for path in paths]
    size = _sizes(paths)
    bounds = [len(paths) ** (level / (levels + 1)) for level in range(1, levels + 1)]
    return [_reaching(path, bounds, lambda node, bound: size[node] >= ceil(bound - 1e-9)) for path in paths]


def _reaching(path: Path, bounds: Sequence[float], reached: Callable[[str, float], bool]) -> Path:
    """The leaf, and per bound the nearest ancestor that reaches it; the top where none does."""
    return (path[0], *(next((node for node in path[1:] if reached(node, bound)), path[-1]) for bound in bounds))


def _places(paths: Sequence[Path]) -> Mapping[str, float]:
    """How far each ancestor is on the way from where all paths meet (0) to the deepest leaf below it (1)."""
    trunk = _shared(paths)
    depth: dict[str, int] = {}
    deepest: dict[str, int] = {}
    for path in paths:
        below = len(path) - trunk  # edges between the leaf and where all paths meet
        for height, node in enumerate(path[1:], 1):
            depth[node] = max(below - height, 0)
            deepest[node] = max(deepest.get(node, 1), below)
    return {node: depth[node] / deepest[node] for node in depth}


def _shared(paths: Sequence[Path]) -> int:
    """How many ancestors all paths end with."""
    reversed_paths = [path[:0:-1] for path in paths]
    return sum(len(set(step)) == 1 for step in zip(*reversed_paths, strict=False))


def _sizes(paths: Sequence[Path]) -> Mapping[str, int]:
    size: dict[str, int] = {}
    for path in paths:
        for node in path[1:]:
            size[node] = size.get(node, 0) + 1
    return size
