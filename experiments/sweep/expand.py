"""A sweep -> its trials, always the same ones in the same order."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import reduce
from itertools import product
from random import Random
from typing import Any

from configs.compose import compose
from configs.errors import ConfigError
from configs.layers import override_layer
from experiments.sweep.spec import EXPERIMENT, Choice, Sweep
from experiments.sweep.trial import Trial


def expand(sweep: Sweep, overrides: Sequence[str] = ()) -> list[Trial]:
    """All trials, in the order of `settings`.

    Args:
        overrides: key=value, for all trials; a parameter of that name is pinned to the value.

    Raises:
        ConfigError: a trial that can't be composed, or two trials that are one run.
    """
    trials = [_trial(sweep, setting) for setting in settings(_pinned(sweep, overrides))]
    _distinct(sweep, trials)
    return trials


def settings(sweep: Sweep) -> list[dict[str, Any]]:
    """Each trial's parameters: the grid in the file's order, or `run_cap` draws, which depend on the sweep's name
    alone; of equal draws the first."""
    found = _grid(sweep) if sweep.method == "grid" else _draws(sweep)
    return found[: sweep.run_cap]


def override(key: str, value: Any) -> str:
    """`key=value` as the command line reads it back: JSON, which is YAML; text bare where that is the same."""
    if isinstance(value, str) and _read(f"{key}={value}") == value:
        return f"{key}={value}"
    return f"{key}={json.dumps(value, ensure_ascii=False)}"


def _pinned(sweep: Sweep, overrides: Sequence[str]) -> Sweep:
    given = {override.partition("=")[0]: Choice((_value(override),)) for override in overrides}
    return replace(sweep, parameters={**sweep.parameters, **given})


def _value(override: str) -> Any:
    values = override_layer([override]).values
    return reduce(lambda section, key: section[key], override.partition("=")[0].split("."), values)


def _read(override: str) -> Any:
    try:
        return _value(override)
    except ConfigError:
        return None


def _grid(sweep: Sweep) -> list[dict[str, Any]]:
    axes = [parameter.values for parameter in sweep.parameters.values() if isinstance(parameter, Choice)]
    return [dict(zip(sweep.parameters, values, strict=True)) for values in product(*axes)]


def _draws(sweep: Sweep) -> list[dict[str, Any]]:
    random = Random(sweep.name)
    drawn = [{key: one.draw(random) for key, one in sweep.parameters.items()} for _ in range(sweep.run_cap or 0)]
    return list({json.dumps(setting, sort_keys=True): setting for setting in drawn}.values())


def _trial(sweep: Sweep, setting: Mapping[str, Any]) -> Trial:
    overrides = [override(key, value) for key, value in setting.items() if key != EXPERIMENT]
    try:
        return Trial.of(compose(str(setting[EXPERIMENT]), overrides), setting)
    except ConfigError as error:
        raise ConfigError(f"{sweep.origin}, trial '{_title(setting)}': {error}") from error


def _title(setting: Mapping[str, Any]) -> str:
    return " ".join(override(key, value) for key, value in setting.items())


def _distinct(sweep: Sweep, trials: Sequence[Trial]) -> None:
    runs: dict[str, Trial] = {}
    for trial in trials:
        twin = runs.setdefault(str(trial.folder), trial)
        if twin is not trial:
            raise ConfigError(
                f"{sweep.origin}: the trials '{_title(twin.parameters)}' and '{_title(trial.parameters)}' are one run, "
                f"{trial.folder}; vary what is trained, and list what it is measured under in evaluation.attacks"
            )
