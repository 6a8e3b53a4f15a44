"""In what the configurations of runs differ."""

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from configs.compose import OUTSIDE_THE_HASH
from configs.errors import ConfigError
from configs.layers import Layer
from configs.sections import SCHEMA_DEFAULT, Given, merge
from configs.values import leaves
from experiments.analysis.outcome import Outcome
from experiments.analysis.runs import Runs, flat

if TYPE_CHECKING:
    import pandas as pd

ASKED = "evaluation"  # outside the hash as well, but it changes what is measured
WITHOUT_EFFECT = frozenset(OUTSIDE_THE_HASH) - {ASKED}
SELECTORS = ("kind", "source")
ABSENT = "-"
EMPTY = "{}"  # a section without entries is as good as none


def differing(runs: Runs) -> "pd.DataFrame":
    """A line a configuration: experiment, hash, seeds, and a column for each dotted key that is not the same for all.

    A value that the schema would have given anyway has `(default)` behind it, `-` stands where a configuration does not
    have the key. A key that some have, all with its default, does not count: their `kind` tells as much. Left out are
    seeds, names, and whatever can't change a figure, such as folders and logging.
    """
    import pandas as pd

    keys = varying(runs.outcomes)
    lines: dict[tuple[str, ...], list[int]] = {}
    for outcome in runs.outcomes:
        values, defaults = flat(outcome.config), _defaults(outcome)
        told = [_told(key, values, defaults) for key in keys]
        lines.setdefault((outcome.experiment, outcome.config_hash, *told), []).append(outcome.seed)
    table = [(*line[:2], ", ".join(map(str, sorted(seeds))), *line[2:]) for line, seeds in lines.items()]
    return pd.DataFrame(table, columns=["experiment", "config_hash", "seeds", *keys])


def varying(outcomes: Sequence[Outcome]) -> list[str]:
    """The dotted keys that are not the same for all, in the configuration's order; see `differing`."""
    found: dict[str, dict[str, int]] = {}
    special: set[str] = set()
    for outcome in outcomes:
        defaults = _defaults(outcome)
        for key, value in flat(outcome.config).items():
            shown = text(value)
            found.setdefault(key, {}).setdefault(shown, 0)
            found[key][shown] += 1
            if defaults.get(key, EMPTY) != shown:
                special.add(key)
    return [
        key
        for key, values in found.items()
        if (len(values) > 1 or (sum(values.values()) < len(outcomes) and key in special)) and not _ignored(key)
    ]


def text(value: Any) -> str:
    """A value as a person would write it into YAML, on one line; equal numbers are the same text."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {text(one)}" for key, one in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(text, value))}]"
    if isinstance(value, float) and value.is_integer():
        return f"{value:.0f}" if abs(value) < 1e15 else repr(value)
    return value if isinstance(value, str) else json.dumps(value)


def plain(outcome: Outcome, key: str) -> bool:
    """Whether a configuration leaves a key as the schema has it, or does not have it."""
    values = flat(outcome.config)
    return key not in values or _defaults(outcome).get(key) == text(values[key])


def _told(key: str, values: Mapping[str, Any], defaults: Mapping[str, str]) -> str:
    if key not in values:
        return ABSENT
    shown = text(values[key])
    return f"{shown} (default)" if defaults.get(key) == shown else shown


def _ignored(key: str) -> bool:
    return any(key == outside or key.startswith(f"{outside}.") for outside in WITHOUT_EFFECT)


def _defaults(outcome: Outcome) -> Mapping[str, str]:
    return _schema_defaults(json.dumps(_kinds(outcome.config)))


@cache
def _schema_defaults(kinds: str) -> Mapping[str, str]:
    """Dotted key -> default; none where the configuration is of a schema that this code does not know."""
    sections = json.loads(kinds)
    found = {key: text(given.value) for key, given in _leaves(sections) if given.origin == SCHEMA_DEFAULT}
    for key in [key for key in flat(sections) if key.rpartition(".")[-1] in SELECTORS]:
        initial = next((given.value for known, given in _leaves(_without(sections, key)) if known == key), None)
        found |= {key: text(initial)} if initial is not None else {}
    return found


def _leaves(sections: dict[str, Any]) -> list[tuple[str, Given]]:
    """Nothing where a section must say of which kind it is, or is of none that is known."""
    try:
        return list(leaves(merge([Layer("a run", sections)])))
    except ConfigError:
        return []


def _without(sections: Mapping[str, Any], key: str) -> dict[str, Any]:
    """The sections but one of their kinds."""
    head, dot, rest = key.partition(".")
    return {
        name: _without(value, rest) if dot and name == head else value
        for name, value in sections.items()
        if dot or name != head
    }


def _kinds(config: Mapping[str, Any]) -> dict[str, Any]:
    """The sections of a configuration with nothing in them but what kinds they are of."""
    return dict(_kind(config.items()))


def _kind(items: Iterable[tuple[str, Any]]) -> Iterable[tuple[str, Any]]:
    for key, value in items:
        if isinstance(value, Mapping):
            yield key, _kinds(value)
        elif key in SELECTORS:
            yield key, value
