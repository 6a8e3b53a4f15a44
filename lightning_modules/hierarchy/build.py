"""A configuration's forest."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from configs.errors import ConfigError, DataError, did_you_mean
from configs.schema.hierarchy import (
    DataTree,
    FileTree,
    FolderTree,
    HierarchyConfig,
    LLMTree,
    TreeSource,
    UnicodeTree,
    WordNetTree,
)
from lightning_modules.hierarchy.forest import Forest
from lightning_modules.hierarchy.outline import file_tree, folder_tree
from lightning_modules.hierarchy.path_file import read_tree
from lightning_modules.hierarchy.tree import Tree
from lightning_modules.hierarchy.unicode import unicode_tree
from lightning_modules.hierarchy.wordnet.tree import wordnet_tree

DataTrees = Mapping[str, Mapping[str, Any]]


def build(config: HierarchyConfig, class_names: Sequence[str], data_trees: DataTrees) -> Forest:
    """The trees of `config` over `class_names`, the names by label; those of the data set where it has none.

    Args:
        data_trees: the manifest's, as {"levels": .., "parents": ..} by name. Their leaves are the labels in order, and
            are called as the classes are.

    Raises:
        DataError: a tree that can't be made, that misses a class or has one too many, or has several roots where one is
            asked for.
        ConfigError: a tree of a language model whose file was not written yet.
    """
    sources = config.trees or {name: DataTree() for name in data_trees}
    trees = [_tree(name, source, tuple(class_names), data_trees) for name, source in sources.items()]
    if config.one_root:
        for tree in trees:
            _check_root(tree)
    return Forest(tuple(class_names), tuple(trees))


def _tree(name: str, source: TreeSource, class_names: tuple[str, ...], data_trees: DataTrees) -> Tree:
    match source:
        case DataTree():
            return _of_data(name, source.name or name, class_names, data_trees)
        case WordNetTree():
            return wordnet_tree(name, source, class_names)
        case FileTree():
            return file_tree(name, Path(source.path), class_names)
        case FolderTree():
            return folder_tree(name, Path(source.root), class_names)
        case UnicodeTree():
            return unicode_tree(name, class_names)
        case LLMTree():
            return _of_llm(name, Path(source.file), class_names)


def _of_data(name: str, key: str, class_names: tuple[str, ...], data_trees: DataTrees) -> Tree:
    if key not in data_trees:
        raise DataError(
            f"the data set has no class tree {key!r}, which hierarchy.trees.{name} names; "
            f"{did_you_mean(key, data_trees)}"
        )
    tree = Tree.from_dict(name, data_trees[key])
    if len(tree.levels[0]) != len(class_names):
        return tree
    return replace(tree, levels=(class_names, *tree.levels[1:]))


def _of_llm(name: str, path: Path, class_names: tuple[str, ...]) -> Tree:
    if not path.is_file():
        raise ConfigError(
            f"hierarchy.trees.{name}.file={path} does not exist yet; write it with `python -m experiments "
            "write-hierarchy`, and review it"
        )
    return read_tree(path, class_names, name)


def _check_root(tree: Tree) -> None:
    roots = tree.levels[-1]
    if len(roots) > 1:
        raise DataError(
            f"tree {tree.name!r} has {len(roots)} roots, {', '.join(roots[:5])}, where one is asked for; "
            "put one class above them, or set hierarchy.one_root=false"
        )
