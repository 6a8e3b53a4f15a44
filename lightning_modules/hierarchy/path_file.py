"""A tree as a file that people review and edit: each class, then its superclasses, nearest first."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from configs.errors import DataError
from lightning_modules.hierarchy.outline import some
from lightning_modules.hierarchy.tree import Tree
from lightning_modules.language_model import clean

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
        DataError: the file can't be read or is not of that form, a class is missing, there twice, unknown, has another
            number of superclasses than the others or a name that is too long, or a superclass has two parents.
    """
    superclasses = _read(path)
    _check_classes(path, superclasses, class_names)
    paths = [(each, *superclasses[each]) for each in class_names]
    try:
        return Tree.from_paths(name or path.stem, paths, {node: node for way in paths for node in way})
    except DataError as error:
        raise DataError(f"class tree {path} is none: {error}") from error


def _read(path: Path) -> dict[str, tuple[str, ...]]:
    try:
        content = yaml.load(path.read_text("utf-8"), _Text)
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"class tree {path} can't be read ({reason}); correct the path or the file") from error
    if not isinstance(content, Mapping) or not content:
        raise DataError(f"class tree {path} holds no classes; write a line 'class: [superclass, ...]' for each")
    return {_name(path, each): _superclasses(path, each, above) for each, above in content.items()}


def _superclasses(path: Path, name: str, above: Any) -> tuple[str, ...]:
    if not isinstance(above, list) or not above or not all(isinstance(each, str) for each in above):
        raise DataError(f"class tree {path} has no list of superclasses at {name!r}; write 'class: [superclass, ...]'")
    return tuple(_name(path, each) for each in above)


def _name(path: Path, name: str) -> str:
    try:
        return clean(name, LONGEST_NAME)
    except ValueError as error:
        raise DataError(f"class tree {path} has {error} in the place of a name; correct the file") from None


def _check_classes(path: Path, superclasses: Mapping[str, Sequence[str]], class_names: Sequence[str]) -> None:
    missing = [each for each in class_names if each not in superclasses]
    if missing:
        raise DataError(f"class tree {path} misses {some(missing)} of the data set's classes; add a line for each")
    unknown = sorted(set(superclasses) - set(class_names))
    if unknown:
        raise DataError(f"class tree {path} has {some(unknown)}, which the data set has not; take them out")
    levels = len(superclasses[class_names[0]])
    for name in class_names:
        if len(superclasses[name]) != levels:
            raise DataError(
                f"class tree {path} has {len(superclasses[name])} superclasses at {name!r} and {levels} at "
                f"{class_names[0]!r}; name as many for each class, repeating the last one where there are no more"
            )


class _Text(yaml.BaseLoader):
    """Every scalar is text: a class may be called `no`, `null` or `1984`. No class comes twice unnoticed."""

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        """A mapping; an error where a key repeats."""
        seen: set[str] = set()
        for key, _ in node.value:
            if str(key.value) in seen:
                line = key.start_mark.line + 1
                raise yaml.constructor.ConstructorError(None, None, f"line {line} has {key.value!r} a second time")
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)
