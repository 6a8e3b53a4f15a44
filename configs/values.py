"""Sections -> frozen dataclasses: each value converted to the type that the schema wants, ranges checked."""

import math
import types
import typing
from collections.abc import Iterator
from dataclasses import make_dataclass
from functools import cache
from typing import Any, Literal

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from configs.errors import ConfigError, FieldError
from configs.schema import ExperimentConfig
from configs.sections import UNSET, Given, Section, hints, join, members


def build(root: Section) -> ExperimentConfig:
    """The typed experiment; `${other.key}` and `${oc.env:NAME}` in values are resolved on the way.

    Raises:
        ConfigError: a mandatory value is missing, a value is of the wrong type or out of range; names key and origin.
    """
    missing = [f"{path} ({given.origin})" for path, given in leaves(root) if given.value == UNSET]
    if missing:
        key = missing[0].partition(" ")[0]
        raise ConfigError(f"not set: {', '.join(missing)}; give it in the experiment file or as {key}=VALUE")
    config: ExperimentConfig = _instance(root, _resolved(root), "")
    return config


def plain(node: Section | Given) -> Any:
    """Nested dictionaries of values as given."""
    return {key: plain(child) for key, child in node.keys.items()} if isinstance(node, Section) else node.value


def leaves(node: Section | Given, path: str = "") -> Iterator[tuple[str, Given]]:
    """Dotted key -> value and origin, in the schema's order."""
    if isinstance(node, Given):
        yield path, node
        return
    for key, child in node.keys.items():
        yield from leaves(child, join(path, key))


def _resolved(root: Section) -> Any:
    """`plain`, with `${other.key}` and `${oc.env:NAME}` replaced by what they stand for."""
    try:
        return OmegaConf.to_container(OmegaConf.create(plain(root)), resolve=True)
    except OmegaConfBaseException as error:
        key = str(error.full_key).partition("[")[0]
        origin = next((given.origin for path, given in leaves(root) if path == key), "")
        raise ConfigError(f"{key} ({origin}) can't be resolved: {str(error).splitlines()[0]}") from error


def _instance(section: Section, values: dict[str, Any], path: str) -> Any:
    built: dict[str, Any] = {}
    for key, child in section.keys.items():
        if isinstance(child, Section):
            built[key] = _instance(child, values[key], join(path, key))
        elif section.schema:
            built[key] = _converted(section.schema, key, Given(values[key], child.origin), path)
        else:
            built[key] = values[key]
    if section.schema is None:
        return built
    try:
        return section.schema(**built)
    except FieldError as error:
        child = section.keys[error.field]
        origin = f" ({child.origin})" if isinstance(child, Given) else ""
        raise ConfigError(f"{join(path, error.field)} {error.problem}{origin}") from error


def _converted(schema: type, key: str, given: Given, path: str) -> Any:
    """By OmegaConf's rules: "3" is an int, 3.5 is not."""
    hint = hints(schema)[key]
    try:
        cell: Any = OmegaConf.to_container(OmegaConf.merge(_cell(hint), {"value": given.value}))
    except (OmegaConfBaseException, TypeError) as error:
        wanted = _in_words(hint)
        raise ConfigError(f"{join(path, key)} must be {wanted}, got {given.value!r} ({given.origin})") from error
    value = cell["value"]
    numbers = value if isinstance(value, list) else [value]
    if not all(math.isfinite(number) for number in numbers if isinstance(number, float)):
        raise ConfigError(f"{join(path, key)} must be finite, got {given.value!r} ({given.origin})")
    return value


@cache
def _cell(hint: Any) -> Any:
    """A structured config of one key: merging into a whole section for each key would take most of a second."""
    return OmegaConf.structured(make_dataclass("Cell", [("value", hint)]))


def _in_words(hint: Any) -> str:
    """`float | None` -> "a number or null"."""
    words = [_part_in_words(part) for part in members(hint)]
    return " or ".join(words + ["null"] * (types.NoneType in typing.get_args(hint)))


def _part_in_words(part: Any) -> str:
    arguments = typing.get_args(part)
    if typing.get_origin(part) is Literal:
        return f"one of {', '.join(map(str, arguments))}"
    if typing.get_origin(part) is list:
        return f"a list, every entry {_in_words(arguments[0])}"
    return {int: "a whole number", float: "a number", bool: "true or false", str: "text"}.get(part, str(part))
