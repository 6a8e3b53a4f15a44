"""Layers -> sections: which dataclass each section is, which value each key ends with, and who set it.

Sections merge key by key; a list or a number replaces the lower layer's. A polymorphic section (`attack`, `data`, ...)
is of the `kind` that the highest layer names, whatever lower layers say:

- keys that both kinds have keep their values (`eps_255` survives a change from pgd to apgd);
- keys of an earlier kind that the new kind lacks are dropped where a layer below the change set them, and are an error
  from there upwards;
- an attack may be the name of a file below configs/attack (`attack=auto_attack/standard`), or have it as its `base`:
  what the file says then stands for all that lower layers say;
- `null` empties an optional section (`data.pack`), takes one entry out of a mapping (`evaluation.attacks.apgd=null`),
  or empties it (`evaluation.attacks=null`), as far as lower layers filled it.
"""

import re
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from functools import cache
from typing import Any

from configs.errors import ConfigError, closest
from configs.layers import Layer, fragment, fragment_names
from configs.schema import ExperimentConfig
from configs.schema.antibodies import BANKS
from configs.schema.attack import ATTACKS
from configs.schema.data import DATA, PACKS
from configs.schema.hierarchy import TREES
from configs.schema.module import MODULES
from configs.schema.objective import GEOMETRIES, OBJECTIVES
from configs.schema.scores import SCORES
from configs.schema.vaccination import PROTOTYPES

SCHEMA_DEFAULT = "schema default"
UNSET = "???"  # OmegaConf's mark of a mandatory value


@dataclass(frozen=True)
class Given:
    """What one layer says about one place in the tree; after merging, a key's value and who set it."""

    value: Any
    origin: str


@dataclass(frozen=True)
class Section:
    """Keys below one dataclass; `schema` is None for a mapping of names to sections."""

    schema: type | None
    keys: dict[str, "Section | Given"]


@dataclass(frozen=True)
class Variants:
    """The closed choice of dataclasses for a section, by the value of its `selector` key.

    folder  of configs/, whose files may be named in place of the section.
    """

    selector: str
    classes: Mapping[str, type]
    folder: str | None = None


VARIANTS = (
    Variants("kind", ATTACKS, "attack"),
    Variants("kind", DATA),
    Variants("source", PACKS),
    Variants("kind", TREES),
    Variants("kind", BANKS),
    Variants("kind", MODULES),
    Variants("kind", OBJECTIVES),
    Variants("kind", GEOMETRIES),
    Variants("kind", PROTOTYPES),
    Variants("kind", SCORES),
)


def merge(layers: Sequence[Layer]) -> Section:
    """All layers, lowest first, over the schema's defaults.

    Raises:
        ConfigError: an unknown key or kind, or a section that is not one; names the layer that said so.
    """
    return _dataclass(ExperimentConfig, [Given(layer.values, layer.origin) for layer in layers], "")


@cache
def hints(schema: type) -> dict[str, Any]:
    """Field name -> resolved annotation."""
    return typing.get_type_hints(schema)


def members(hint: Any) -> tuple[Any, ...]:
    """The parts of a union, null left out; (hint,) where it is none."""
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        return tuple(part for part in typing.get_args(hint) if part is not types.NoneType)
    return (hint,)


def join(path: str, key: str) -> str:
    """Dotted key."""
    return f"{path}.{key}" if path else key


def default_of(field: Field[Any]) -> Any:
    """The schema's default of one field; UNSET where the field is mandatory."""
    if field.default is not MISSING:
        return field.default
    return field.default_factory() if field.default_factory is not MISSING else UNSET


def _value(hint: Any, default: Any, given: Sequence[Given], path: str) -> Section | Given:
    parts = members(hint)
    if typing.get_origin(hint) is dict:
        return _mapping(typing.get_args(hint)[1], given, path)
    if not is_dataclass(parts[0]):
        return given[-1] if given else Given(default, SCHEMA_DEFAULT)
    if types.NoneType in typing.get_args(hint):
        given, emptied = _after_null(given)
        if not given and (default is None or emptied != SCHEMA_DEFAULT):
            return Given(None, emptied)
    if len(parts) == 1:
        return _dataclass(parts[0], given, path)
    return _polymorphic(_variants(parts), default, given, path)


def _dataclass(schema: Any, given: Sequence[Given], path: str) -> Section:
    _require_sections(given, path)
    for said in given:
        for key in said.value:
            if key not in hints(schema):
                raise _unknown(schema, key, path, said.origin)
    keys = {}
    for field in fields(schema):
        below = [Given(said.value[field.name], said.origin) for said in given if field.name in said.value]
        keys[field.name] = _value(hints(schema)[field.name], default_of(field), below, join(path, field.name))
    return Section(schema, keys)


def _mapping(hint: Any, given: Sequence[Given], path: str) -> Section:
    given, _ = _after_null(given)
    _require_sections(given, path)
    below: dict[str, list[Given]] = {}
    for said in given:
        for name, value in said.value.items():
            if not re.fullmatch(r"\w[\w.@-]*", name):
                raise ConfigError(
                    f"the name '{name}' in {path} ({said.origin}) may hold letters, digits and _ - @ . only"
                )
            below.setdefault(name, []).append(Given(value, said.origin))
    entries = {name: _after_null(values)[0] for name, values in below.items()}
    return Section(None, {name: _value(hint, None, said, join(path, name)) for name, said in entries.items() if said})


def _polymorphic(variants: Variants, default: Any, given: Sequence[Given], path: str) -> Section:
    given = _from_files(variants, given, path)
    _require_sections(given, path)
    for said in given:
        _check_choice(variants, said, path)
    in_effect: list[str | None] = []
    for said in given:
        in_effect.append(said.value.get(variants.selector, in_effect[-1] if in_effect else None))
    initial = getattr(default, variants.selector, None)
    chosen = (in_effect[-1] if in_effect else None) or initial
    if chosen is None:
        names = ", ".join(variants.classes)
        raise ConfigError(f"{path}.{variants.selector} is not set ({given[-1].origin}); choose from: {names}")
    earlier = {variants.classes[kind] for kind in (initial, *in_effect) if kind and kind != chosen}
    droppable = {key for schema in earlier for key in hints(schema)} - set(hints(variants.classes[chosen]))
    kept = [said if kind == chosen else _without(said, droppable) for said, kind in zip(given, in_effect, strict=True)]
    return _dataclass(variants.classes[chosen], kept, path)


def _from_files(variants: Variants, given: Sequence[Given], path: str) -> Sequence[Given]:
    """With the content of the last file that is named; without what was said before it."""
    found: list[Given] = []
    for said in given:
        name = said.value.get("base") if isinstance(said.value, dict) else said.value
        if variants.folder is None or not isinstance(name, str):
            found.append(said)
            continue
        if name in variants.classes and name not in fragment_names(variants.folder):
            raise ConfigError(f"{path} names no file but a kind ({said.origin}); set {path}.{variants.selector}={name}")
        layer = fragment(variants.folder, name)
        found = [Given(layer.values, layer.origin)]
        if isinstance(said.value, dict):
            found.append(_without(said, {"base"}))
    return found


def _without(said: Given, dropped: set[str]) -> Given:
    return Given({key: value for key, value in said.value.items() if key not in dropped}, said.origin)


def _after_null(given: Sequence[Given]) -> tuple[Sequence[Given], str]:
    """What was said after the last null, and who said null (or that nobody did)."""
    for index in reversed(range(len(given))):
        if given[index].value is None:
            return given[index + 1 :], given[index].origin
    return given, SCHEMA_DEFAULT


def _variants(parts: tuple[Any, ...]) -> Variants:
    return next(variants for variants in VARIANTS if set(variants.classes.values()) == set(parts))


def _require_sections(given: Sequence[Given], path: str) -> None:
    for said in given:
        if not isinstance(said.value, dict):
            raise ConfigError(
                f"{path} is a section and can't be {said.value!r} ({said.origin}); set the keys below it, as {path}.KEY"
            )


def _check_choice(variants: Variants, said: Given, path: str) -> None:
    choice = said.value.get(variants.selector, next(iter(variants.classes)))
    if not isinstance(choice, str) or choice not in variants.classes:
        names = ", ".join(variants.classes)
        raise ConfigError(f"{path}.{variants.selector} must be one of {names}; got {choice!r} ({said.origin})")


def _unknown(schema: type, key: str, path: str, origin: str) -> ConfigError:
    kind, others = "", []
    for variants in VARIANTS:
        names = {sibling: name for name, sibling in variants.classes.items()}
        if schema in names:
            kind = f" with {variants.selector}={names[schema]}"
            others = [f"{variants.selector}={names[sibling]}" for sibling in names if key in hints(sibling)]
    remedy = f"{' or '.join(others)} has it" if others else _closest_key(schema, key, path)
    return ConfigError(f"unknown key '{join(path, key)}'{kind} ({origin}); {remedy}")


def _closest_key(schema: type, key: str, path: str) -> str:
    """The closest key of this section, or one of that name in another (`lr` is optim.lr), or all that there are."""
    near = closest(key, hints(schema))
    if near:
        return f"did you mean '{join(path, near)}'?"
    elsewhere = [dotted for dotted in _all_keys(ExperimentConfig) if dotted.endswith(f".{key}")]
    if elsewhere:
        return f"did you mean '{min(elsewhere, key=len)}'?"
    return f"choose from: {', '.join(hints(schema))}"


def _all_keys(schema: type, path: str = "") -> Iterator[str]:
    for name, hint in hints(schema).items():
        dotted = join(path, name)
        yield dotted
        for part in members(hint):
            if is_dataclass(part):
                yield from _all_keys(part, dotted)  # type: ignore[arg-type]
