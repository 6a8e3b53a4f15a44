"""A sweep as Weights & Biases writes one, read and checked without wandb.

    name: radius                        # the file's, unless it says another; becomes a folder
    description: what it is for
    program: tecoa_openmoji             # the experiment; or let a parameter `experiment` list several
    method: grid                        # every combination, the last parameter varying fastest; or random
    run_cap: 20                         # at most so many trials; random needs it
    metric: {name: accuracy/pgd20/leaf, goal: maximize}
    parameters:
      experiment: {values: [tecoa_openmoji, fare_openmoji]}
      seed: {values: [0, 1, 2]}
      attack.eps_255: {value: 8}        # any dotted key of a configuration
      optim.lr: {min: 1e-4, max: 1e-2, distribution: log_uniform_values}    # random alone
    compare:                            # ours
      baseline: {experiment: tecoa_openmoji}
      metrics: [accuracy/*/leaf, accuracy/*/levels, auroc/mcm/*]

`compare` is the only key that W&B does not know: the method that others are paired with (default: the first), and the
columns of the comparison (default: all), as patterns of names (`experiments.analysis.sweeps`). `metric` leads them.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import exp, isfinite, log
from pathlib import Path
from random import Random
from typing import Any

from configs.errors import ConfigError, did_you_mean
from configs.layers import CONFIGS, file_layers, fragment_names

EXPERIMENT, SEED = "experiment", "seed"
KEYS = ("name", "description", "program", "method", "run_cap", "metric", "parameters", "compare")
METHODS = ("grid", "random")
GOALS = ("maximize", "minimize")
DISTRIBUTIONS = ("uniform", "int_uniform", "log_uniform_values")
DIGITS = 6  # of a drawn number, so that it reads well on a command line


@dataclass(frozen=True)
class Choice:
    """One of the values, each as likely."""

    values: tuple[Any, ...]

    def draw(self, random: Random) -> Any:
        """One of them."""
        return random.choice(self.values)


@dataclass(frozen=True)
class Range:
    """A number between two bounds; a whole one, both bounds included, where the distribution is int_uniform."""

    low: float
    high: float
    distribution: str

    def draw(self, random: Random) -> float:
        """One number, floats to six digits."""
        if self.distribution == "int_uniform":
            return random.randint(int(self.low), int(self.high))
        if self.distribution == "log_uniform_values":
            drawn = exp(random.uniform(log(self.low), log(self.high)))
        else:
            drawn = random.uniform(self.low, self.high)
        return float(f"{drawn:.{DIGITS}g}")


Parameter = Choice | Range


@dataclass(frozen=True)
class Sweep:
    """What is varied, how, and what is compared in the end.

    origin      the file, as a person would write it.
    parameters  in the file's order; `experiment` is always among them.
    metric      the leading column of the comparison and what is good, (name, goal).
    baseline    parameters of the method that others are paired with; empty: the first.
    columns     patterns of the figures that are compared; empty: all.
    """

    name: str
    origin: str
    method: str
    parameters: Mapping[str, Parameter]
    run_cap: int | None
    metric: tuple[str, str] | None
    baseline: Mapping[str, Any]
    columns: tuple[str, ...]


def read(sweep: str) -> Sweep:
    """A shipped sweep by NAME, or a YAML file by path.

    Raises:
        ConfigError: one sentence that names the file, the key in it, and what to do.
    """
    path = _path(sweep)
    layers = file_layers(path)
    origin, values = layers[-1].origin, layers[-1].values
    if len(layers) > 1:
        raise ConfigError(f"{origin} has a base, which experiments alone can have; write the sweep out")
    _known(origin, "", values, KEYS)
    method = _one_of(origin, "method", values.get("method"), METHODS)
    parameters = _parameters(origin, values, method)
    compare = _mapping(origin, "compare", values.get("compare", {}))
    _known(origin, "compare.", compare, ("baseline", "metrics"))
    return Sweep(
        name=_folder_name(origin, values.get("name", path.stem)),
        origin=origin,
        method=method,
        parameters=parameters,
        run_cap=_run_cap(origin, values.get("run_cap"), method),
        metric=_metric(origin, values.get("metric")),
        baseline=_baseline(origin, compare.get("baseline", {}), parameters),
        columns=_texts(origin, "compare.metrics", compare.get("metrics", [])),
    )


def _path(sweep: str) -> Path:
    if "/" in sweep or sweep.endswith((".yaml", ".yml")):
        if not Path(sweep).is_file():
            raise ConfigError(f"there is no sweep file {sweep}; give a path to a YAML file, or a shipped name alone")
        return Path(sweep)
    if sweep not in fragment_names("sweep"):
        raise ConfigError(f"there is no sweep '{sweep}'; {did_you_mean(sweep, fragment_names('sweep'))}")
    return CONFIGS / "sweep" / f"{sweep}.yaml"


def _parameters(origin: str, values: Mapping[str, Any], method: str) -> dict[str, Parameter]:
    given = _mapping(origin, "parameters", values.get("parameters"))
    program = values.get("program")
    if (program is None) == (EXPERIMENT not in given):
        raise ConfigError(
            f"{origin} must name its experiment once: as program, or as the parameter {EXPERIMENT} with several values"
        )
    first = {} if program is None else {EXPERIMENT: {"value": program}}
    read = {key: _parameter(origin, f"parameters.{key}", one, method) for key, one in {**first, **given}.items()}
    experiments = read[EXPERIMENT]
    if not isinstance(experiments, Choice) or not all(isinstance(name, str) for name in experiments.values):
        raise ConfigError(f"parameters.{EXPERIMENT} in {origin} must list names of experiments or YAML files as values")
    return read


def _parameter(origin: str, key: str, given: Any, method: str) -> Parameter:
    given = _mapping(origin, key, given)
    _known(origin, f"{key}.", given, ("value", "values", "min", "max", "distribution"))
    if "value" in given and len(given) == 1:
        return Choice((given["value"],))
    if "values" in given and len(given) == 1:
        values = given["values"]
        if not isinstance(values, list) or not values:
            raise ConfigError(f"{key}.values in {origin} must be a list with an entry at least, got {values!r}")
        return Choice(tuple(values))
    if "min" in given and "max" in given and "values" not in given and "value" not in given:
        return _range(origin, key, given, method)
    raise ConfigError(f"{key} in {origin} needs values: [...], or value: ..., or min and max with a distribution")


def _range(origin: str, key: str, given: Mapping[str, Any], method: str) -> Range:
    if method == "grid":
        raise ConfigError(f"{key} in {origin} is a range, which has no grid; list its values, or use method: random")
    low, high = given["min"], given["max"]
    numbers = all(isinstance(one, (int, float)) and not isinstance(one, bool) and isfinite(one) for one in (low, high))
    if not numbers or low >= high:
        raise ConfigError(f"{key} in {origin} needs numbers with min < max, got {low!r} and {high!r}")
    whole = isinstance(low, int) and isinstance(high, int)
    default = "int_uniform" if whole else "uniform"  # as W&B has it
    distribution = _one_of(origin, f"{key}.distribution", given.get("distribution", default), DISTRIBUTIONS)
    if distribution == "int_uniform" and not whole:
        raise ConfigError(f"{key} in {origin} is int_uniform and needs whole numbers, got {low!r} and {high!r}")
    if distribution == "log_uniform_values" and low <= 0:
        raise ConfigError(f"{key} in {origin} is log_uniform_values and needs min > 0, got {low!r}")
    return Range(low, high, distribution)


def _run_cap(origin: str, given: Any, method: str) -> int | None:
    if given is None and method == "grid":
        return None
    if not isinstance(given, int) or isinstance(given, bool) or given < 1:
        raise ConfigError(f"run_cap in {origin} must be the number of trials, 1 at least, got {given!r}")
    return given


def _metric(origin: str, given: Any) -> tuple[str, str] | None:
    if given is None:
        return None
    metric = _mapping(origin, "metric", given)
    _known(origin, "metric.", metric, ("name", "goal"))
    (name,) = _texts(origin, "metric.name", [metric.get("name")])
    return name, _one_of(origin, "metric.goal", metric.get("goal", "minimize"), GOALS)  # W&B's default


def _baseline(origin: str, given: Any, parameters: Mapping[str, Parameter]) -> Mapping[str, Any]:
    baseline = _mapping(origin, "compare.baseline", given)
    for key, value in baseline.items():
        _known(origin, "compare.baseline.", [key], parameters)
        parameter = parameters[key]
        if not isinstance(parameter, Choice) or value not in parameter.values:
            raise ConfigError(f"compare.baseline.{key} in {origin} is {value!r}, which is no value of that parameter")
    varied = (
        key for key, one in parameters.items() if key != SEED and not (isinstance(one, Choice) and len(one.values) == 1)
    )
    missing = [key for key in varied if key not in baseline]
    if baseline and missing:
        raise ConfigError(f"compare.baseline in {origin} fits several methods; give {', '.join(missing)} too")
    return baseline


def _folder_name(origin: str, given: Any) -> str:
    if not isinstance(given, str) or not given or not all(letter.isalnum() or letter in "_.-" for letter in given):
        raise ConfigError(f"name in {origin} becomes a folder: letters, digits and _ . - only, got {given!r}")
    return given


def _mapping(origin: str, key: str, given: Any) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise ConfigError(f"{key} in {origin} must be a section with keys below it, got {given!r}")
    return given


def _texts(origin: str, key: str, given: Any) -> tuple[str, ...]:
    if not isinstance(given, list) or not all(isinstance(one, str) for one in given):
        raise ConfigError(f"{key} in {origin} must be text, got {given!r}")
    return tuple(given)


def _one_of(origin: str, key: str, given: Any, choices: tuple[str, ...]) -> str:
    if given not in choices:
        raise ConfigError(f"{key} in {origin} is {given!r}; {did_you_mean(str(given), choices)}")
    return str(given)


def _known(origin: str, section: str, given: Iterable[str], choices: Iterable[str]) -> None:
    for key in given:
        if key not in choices:
            raise ConfigError(f"unknown key {section}{key} in {origin}; {did_you_mean(key, choices)}")
