"""Classes written below their superclasses: in a YAML or JSON file, or as nested folders."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from configs.errors import DataError
from lightning_modules.hierarchy.cut import cut
from lightning_modules.hierarchy.tree import Tree

Names = tuple[str, ...]  # a class, then its superclasses, nearest first


def file_tree(name: str, path: Path, class_names: Sequence[str]) -> Tree:
    """The tree in a file: superclasses with their classes below, or {"levels": .., "parents": ..}, leaves in any order.

        animal:
          canine: [dog, fox]
          cat:            # a leaf beside a superclass
        vehicle: [car, bus]

    Raises:
        DataError: the file can't be read or holds no tree, a class lies below itself, a leaf comes twice, or is none of
            `class_names`, or one of these is missing.
    """
    content = _read(path)
    if isinstance(content, Mapping) and set(content) == {"levels", "parents"}:
        return _in_order(Tree.from_dict(name, content), class_names, str(path))
    return outlined(name, list(_leaves(content, (), str(path))), class_names, str(path))


def folder_tree(name: str, root: Path, class_names: Sequence[str]) -> Tree:
    """The tree of the folders below `root`; the innermost are the classes. A link to a folder is a class too.

    Raises:
        DataError: there is no such folder, and as `file_tree` does.
    """
    if not root.is_dir():
        raise DataError(
            f"tree {name!r} needs the folder {root}, which does not exist; correct hierarchy.trees.{name}.root"
        )
    return outlined(name, list(_leaves(_folders(root), (), str(root))), class_names, str(root))


def outlined(name: str, leaves: Sequence[Names], class_names: Sequence[str], where: str) -> Tree:
    """The tree over `class_names` in their order. As deep as its deepest leaf; others repeat their topmost superclass.

    Args:
        leaves: each leaf with its superclasses, nearest first, in any order.

    Raises:
        DataError: a leaf comes twice, is none of `class_names`, or one of these is missing.
    """
    by_name: dict[str, Names] = {}
    for leaf in leaves:
        if leaf[0] in by_name:
            raise DataError(
                f"{where} has the leaf {leaf[0]!r} twice, as {' > '.join(reversed(leaf))} and as "
                f"{' > '.join(reversed(by_name[leaf[0]]))}; leave one of them out"
            )
        by_name[leaf[0]] = leaf
    _check_same(set(by_name), class_names, where)
    ways = [by_name[leaf] for leaf in class_names]
    paths = [tuple("\n".join(way[place:]) for place in range(len(way))) for way in ways]
    names = {node: each for path, way in zip(paths, ways, strict=True) for node, each in zip(path, way, strict=True)}
    return Tree.from_paths(name, cut(paths, max(map(len, paths)) - 1, "nearest"), names)


def some(names: Sequence[str]) -> str:
    """The first few, quoted, and how many more there are."""
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(map(repr, names[:5])) + more


def _check_same(leaves: set[str], class_names: Sequence[str], where: str) -> None:
    missing = [each for each in class_names if each not in leaves]
    if missing:
        raise DataError(f"{where} misses {some(missing)} of the data set's classes; add them as leaves")
    foreign = sorted(leaves - set(class_names))
    if foreign:
        raise DataError(f"{where} has the leaves {some(foreign)}, which the data set has not; leave them out")


def _leaves(content: Any, above: Names, where: str) -> Iterator[Names]:
    entries = content.items() if isinstance(content, Mapping) else ((each, None) for each in content or ())
    for name, below in entries:
        if isinstance(name, Mapping) and below is None:  # an entry of a list that has classes below it
            yield from _leaves(name, above, where)
            continue
        if not isinstance(name, str) or not isinstance(below, Mapping | list | None):
            raise DataError(
                f"{where} has {name!r}: {below!r} where a class's name, with a list or a mapping of the "
                "classes below it, is wanted; quote names that are no words"
            )
        if name in above:
            raise DataError(f"{where} has a cycle: the class {name!r} lies below itself; rename one, or take one out")
        if below:
            yield from _leaves(below, (name, *above), where)
        else:
            yield (name, *above)


def _in_order(tree: Tree, class_names: Sequence[str], where: str) -> Tree:
    """With its leaves in the order of `class_names`."""
    place = {leaf: place for place, leaf in enumerate(tree.levels[0])}
    _check_same(set(place), class_names, where)
    if len(place) < len(tree.levels[0]):
        raise DataError(f"{where} has {len(tree.levels[0]) - len(place)} leaves twice; leave them out")
    parents = [tuple(tree.parents[0][place[leaf]] for leaf in class_names)] if tree.parents else []
    return Tree(tree.name, (tuple(class_names), *tree.levels[1:]), (*parents, *tree.parents[1:]))


def _folders(folder: Path) -> dict[str, Any]:
    inner = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    return {path.name: {} if path.is_symlink() else _folders(path) for path in inner}


def _read(path: Path) -> Any:
    try:
        text = path.read_text("utf-8")
        content = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"class tree {path} can't be read ({reason}); correct the path or the file") from error
    if not isinstance(content, Mapping | list) or not content:
        raise DataError(f"class tree {path} holds no classes; write superclasses with the classes below them")
    return content
