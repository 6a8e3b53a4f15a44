"""A tree as a file that people review and edit: each class, then its superclasses, nearest first."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml  # type: ignore[import-untyped]

from configs.errors import DataError
from lightning_modules.hierarchy.class_file import read_class_file
from lightning_modules.hierarchy.tree import Tree

LONGEST_NAME = 100  # characters


def to_yaml(superclasses: Mapping[str, Sequence[str]], header: Sequence[str]) -> str:
    """The file's text: `header` as comments, one line each, then a line a class."""
    comments = [f"# {' '.join(line.split())}\n" for line in header]
    lines = {name: list(above) for name, above in superclasses.items()}
    body = yaml.safe_dump(lines, allow_unicode=True, sort_keys=False, default_flow_style=None, width=10**6)
    return "".join(comments) + str(body)


def read_tree(path: Path, class_names: Sequence[str], name: str | None = None) -> Tree:
    """The tree over `class_names` in their order, called `name`, or as the file is.

        fox: [wild canine, mammal, animal]
        bus: [road vehicle, motor vehicle, vehicle]

    Raises:
        DataError: as of `read_class_file`, or a superclass has two parents.
    """
    superclasses = read_class_file(path, class_names, "class tree", "superclasses", LONGEST_NAME)
    paths = [(each, *superclasses[each]) for each in class_names]
    try:
        return Tree.from_paths(name or path.stem, paths, {node: node for way in paths for node in way})
    except DataError as error:
        raise DataError(f"class tree {path} is none: {error}") from error
