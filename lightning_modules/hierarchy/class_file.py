"""A file that people review and edit: each class of a data set, with a list of texts."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from configs.errors import DataError
from lightning_modules.hierarchy.outline import some
from lightning_modules.language_model import clean

Lists = dict[str, tuple[str, ...]]


def read_class_file(path: Path, class_names: Sequence[str], what: str, entries: str, longest: int) -> Lists:
    """The texts of each class, as many for each, in the order of `class_names`.

        fox: [a red coat, a bushy tail]
        bus: [rows of windows, a long box on wheels]

    Args:
        what, entries: what messages call the file and the texts.
        longest: characters that a text or a name may have.

    Raises:
        DataError: the file can't be read or is not of that form, a class is missing, there twice, unknown, has another
            number of texts than the others, or a text is empty or too long.
    """
    lists = read_lists(path, what, entries, longest)
    missing = [each for each in class_names if each not in lists]
    if missing:
        raise DataError(f"{what} {path} misses {some(missing)} of the data set's classes; add a line for each")
    unknown = sorted(set(lists) - set(class_names))
    if unknown:
        raise DataError(f"{what} {path} has {some(unknown)}, which the data set has not; take them out")
    count = len(lists[class_names[0]])
    for name in class_names:
        if len(lists[name]) != count:
            raise DataError(
                f"{what} {path} has {len(lists[name])} {entries} at {name!r} and {count} at {class_names[0]!r}; "
                "write as many for each class, repeating the last one where there are no more"
            )
    return {name: lists[name] for name in class_names}


def read_lists(path: Path, what: str, entries: str, longest: int) -> Lists:
    """The texts of the classes that the file has, however many each; arguments and errors as of `read_class_file`."""
    try:
        content = yaml.load(path.read_text("utf-8"), _Text)
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{what} {path} can't be read ({reason}); correct the path or the file") from error
    if not isinstance(content, Mapping) or not content:
        raise DataError(f"{what} {path} holds no classes; write a line 'class: [first, second, ...]' for each")
    found = {}
    for name, texts in content.items():
        if not isinstance(texts, list) or not texts or not all(isinstance(each, str) for each in texts):
            raise DataError(f"{what} {path} has no list of {entries} at {name!r}; write 'class: [first, second, ...]'")
        try:
            found[clean(name, longest)] = tuple(clean(each, longest) for each in texts)
        except ValueError as error:
            raise DataError(f"{what} {path} has {error} at {name[:longest]!r}; correct the file") from None
    return found


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
