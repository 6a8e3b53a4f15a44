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
from configs.schema import ExperimentConfig
from configs.schema.data import ClassificationData, OpenWorldData
from experiments.sweep.parameter import Choice, fixed
from experiments.sweep.spec import EXPERIMENT, Sweep
from experiments.sweep.trial import Trial


def expand(sweep: Sweep, overrides: Sequence[str] = ()) -> list[Trial]:
    """All trials, in the order of `settings`.

    Args:
        overrides: key=value, for all trials; a parameter of that name is pinned to the value.

    Raises:
        ConfigError: a trial that can't be composed, or two trials that are one run.
    """
    trials = [composed_trial(sweep, setting) for setting in settings(pinned(sweep, overrides))]
    _distinct(sweep, trials)
    return trials


def any_trial(sweep: Sweep) -> Trial:
    """Some trial of a search, always the same one: whether it can be composed, and where its run is, is known early."""
    return composed_trial(sweep, {key: one.draw(Random(sweep.name)) for key, one in sweep.parameters.items()})


def only_trial(sweep: Sweep, overrides: Sequence[str]) -> Trial:
    """The one trial that key=value names, as an agent of W&B asks for it.

    Raises:
        ConfigError: a parameter with a choice left; a trial that can't be composed.
    """
    whole = pinned(sweep, overrides)
    free = [key for key, parameter in whole.parameters.items() if not fixed(parameter)]
    if free:
        raise ConfigError(f"--trial runs one trial of {sweep.origin}; give {', '.join(free)} as key=value")
    (setting,) = _grid(whole)
    return composed_trial(sweep, setting)


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


def pinned(sweep: Sweep, overrides: Sequence[str]) -> Sweep:
    """The sweep with parameters that key=value sets, for good, whether it had them or not."""
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


def _title(setting: Mapping[str, Any]) -> str:
    return " ".join(override(key, value) for key, value in setting.items())


def composed_trial(sweep: Sweep, setting: Mapping[str, Any]) -> Trial:
    """The trial with these parameters.

    Raises:
        ConfigError: it can't be composed, or the sweep is a search and this would be measured on what is tested on.
    """
    overrides = [override(key, value) for key, value in setting.items() if key != EXPERIMENT]
    try:
        composed = compose(str(setting[EXPERIMENT]), overrides)
        if sweep.searches:
            _check_search(sweep, composed.config)
    except ConfigError as error:
        raise ConfigError(f"{sweep.origin}, trial '{_title(setting)}': {error}") from error
    return Trial.of(composed, setting)


def _check_search(sweep: Sweep, config: ExperimentConfig) -> None:
    """A search chooses by its metric; what is chosen by the test split, or by the unknown of the test, is no test.

    `METRIC/SCORE/SPLIT/ATTACK@RADIUS` is of the test by its split, whatever stands behind it.
    """
    name = sweep.metric[0] if sweep.metric else ""
    data = config.data
    tested = {*data.near_ood, *data.far_ood, "near", "far"} if isinstance(data, OpenWorldData) else set()
    if config.evaluation.split != "val":
        raise ConfigError(
            f"evaluation.split is {config.evaluation.split}, and a search must not see it; set evaluation.split to val"
        )
    if isinstance(data, ClassificationData) and data.val_split == data.test_split:
        raise ConfigError(
            f"data.val_split={data.val_split} is the test split too, and a search must not see it; set data.val_split "
            f"to another, such as {data.train_split}"
        )
    if tested.intersection(part.partition("@")[0] for part in name.split("/")):
        raise ConfigError(
            f"{name} is measured on data of the test; let the search have a metric of the validation split"
        )
    if sweep.halving and not config.trainer.validate_every:
        raise ConfigError(f"{sweep.halving.watch} is never measured; set trainer.validate_every")


def _distinct(sweep: Sweep, trials: Sequence[Trial]) -> None:
    runs: dict[str, Trial] = {}
    for trial in trials:
        twin = runs.setdefault(str(trial.folder), trial)
        if twin is not trial:
            raise ConfigError(
                f"{sweep.origin}: the trials '{_title(twin.parameters)}' and '{_title(trial.parameters)}' are one run, "
                f"{trial.folder}; vary what is trained, and list what it is measured under in evaluation.attacks"
            )
