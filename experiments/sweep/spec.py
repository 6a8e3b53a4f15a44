"""A sweep as Weights & Biases writes one, read and checked without wandb.

    name: radius                        # the file's, unless it says another; becomes a folder
    description: what it is for
    program: tecoa_openmoji             # the experiment; or let a parameter `experiment` list several
    method: grid                        # every combination, the last parameter varying fastest; or random; or bayes
    run_cap: 20                         # at most so many trials; random and bayes need it
    metric: {name: accuracy/pgd20/leaf, goal: maximize}
    parameters:
      experiment: {values: [tecoa_openmoji, fare_openmoji]}
      seed: {values: [0, 1, 2]}
      attack.eps_255: {value: 8}        # any dotted key of a configuration
      optim.lr: {min: 1e-4, max: 1e-2, distribution: log_uniform_values}    # random and bayes
    early_terminate: {type: hyperband, min_iter: 2, eta: 3}     # bayes: a third goes on after validation 2, 6, ...
    watch: val/robust_accuracy          # ours: the column of metrics.csv that early_terminate looks at
    compare:                            # ours
      baseline: {experiment: tecoa_openmoji}
      metrics: [accuracy/*/leaf, accuracy/*/levels, auroc/mcm/*]
    slurm: {partition: gpu, minutes: 240}                       # ours: what the engine submitit asks for

`compare`: the method that others are paired with (default: the first), and the columns of the comparison (default:
all), as patterns of names (`experiments.analysis.finding`). `metric` leads them; a search, which is method bayes or a
parameter drawn from a range, is after it, and may only be after what is measured on the validation split. W&B knows the
keys that are not ours; `--engine wandb --dry-run` prints the sweep as it is given to W&B.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.errors import ConfigError, did_you_mean
from configs.layers import CONFIGS, file_layers, fragment_names
from experiments.sweep.checks import known, mapping, one_of, texts, whole
from experiments.sweep.parameter import Choice, Parameter, Range, fixed, parse

EXPERIMENT, SEED = "experiment", "seed"
KEYS = (
    *("name", "description", "program", "method", "run_cap", "metric", "parameters", "early_terminate"),
    *("watch", "compare", "slurm"),
)
METHODS = ("grid", "random", "bayes")
GOALS = ("maximize", "minimize")


@dataclass(frozen=True)
class Halving:
    """Successive halving (Li et al. 2020), W&B's `hyperband`: of the trials that were validated min_iter * eta^k times,
    k = 0, 1, ..., the best 1 / eta go on.

    watch  the column of metrics.csv that they are compared by.
    """

    min_iter: int
    eta: int
    watch: str


@dataclass(frozen=True)
class Sweep:
    """What is varied, how, and what is compared in the end.

    origin      the file, as a person would write it.
    file        the same, as it was asked for.
    parameters  in the file's order; `experiment` is always among them.
    metric      the leading column of the comparison and what is good, (name, goal).
    halving     None: every trial is run to its end.
    baseline    parameters of the method that others are paired with; empty: the first.
    columns     patterns of the figures that are compared; empty: all.
    slurm       what is asked for of a cluster (`experiments.sweep.cluster`).
    """

    name: str
    description: str
    origin: str
    file: str
    method: str
    parameters: Mapping[str, Parameter]
    run_cap: int | None
    metric: tuple[str, str] | None
    halving: Halving | None
    baseline: Mapping[str, Any]
    columns: tuple[str, ...]
    slurm: Mapping[str, Any]

    @property
    def searches(self) -> bool:
        """Whether it is after the best of settings that have one trial each: these are ranked by the metric, which may
        only be of the validation split, and not paired by seed."""
        drawn = any(isinstance(parameter, Range) for parameter in self.parameters.values())
        return self.method == "bayes" or (drawn and self.metric is not None)


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
    known(origin, "", values, KEYS)
    method = one_of(origin, "method", values.get("method"), METHODS)
    parameters = _parameters(origin, values, method)
    compare = mapping(origin, "compare", values.get("compare", {}))
    known(origin, "compare.", compare, ("baseline", "metrics"))
    return Sweep(
        name=_folder_name(origin, values.get("name", path.stem)),
        description=str(values.get("description", "")),
        origin=origin,
        file=sweep,
        method=method,
        parameters=parameters,
        run_cap=_run_cap(origin, values.get("run_cap"), method),
        metric=_metric(origin, values.get("metric"), method),
        halving=_halving(origin, values, method),
        baseline=_baseline(origin, compare.get("baseline", {}), parameters),
        columns=texts(origin, "compare.metrics", compare.get("metrics", [])),
        slurm=mapping(origin, "slurm", values.get("slurm", {})),
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
    given = mapping(origin, "parameters", values.get("parameters"))
    program = values.get("program")
    if (program is None) == (EXPERIMENT not in given):
        raise ConfigError(
            f"{origin} must name its experiment once: as program, or as the parameter {EXPERIMENT} with several values"
        )
    first = {} if program is None else {EXPERIMENT: {"value": program}}
    read = {key: parse(origin, f"parameters.{key}", one, method) for key, one in {**first, **given}.items()}
    experiments = read[EXPERIMENT]
    if not isinstance(experiments, Choice) or not all(isinstance(name, str) for name in experiments.values):
        raise ConfigError(f"parameters.{EXPERIMENT} in {origin} must list names of experiments or YAML files as values")
    return read


def _run_cap(origin: str, given: Any, method: str) -> int | None:
    return None if given is None and method == "grid" else whole(origin, "run_cap", given)


def _metric(origin: str, given: Any, method: str) -> tuple[str, str] | None:
    if given is None and method != "bayes":
        return None
    metric = mapping(origin, "metric", given)
    known(origin, "metric.", metric, ("name", "goal"))
    (name,) = texts(origin, "metric.name", [metric.get("name")])
    return name, one_of(origin, "metric.goal", metric.get("goal", "minimize"), GOALS)  # W&B's default


def _halving(origin: str, values: Mapping[str, Any], method: str) -> Halving | None:
    given, watch = values.get("early_terminate"), values.get("watch")
    if given is None and watch is None:
        return None
    if method != "bayes":
        raise ConfigError(
            f"early_terminate and watch in {origin} are of a search; leave them out, or use method: bayes"
        )
    section = mapping(origin, "early_terminate", given)
    known(origin, "early_terminate.", section, ("type", "min_iter", "eta"))
    one_of(origin, "early_terminate.type", section.get("type"), ("hyperband",))
    (column,) = texts(origin, "watch, a column of metrics.csv such as val/robust_accuracy,", [watch])
    return Halving(
        whole(origin, "early_terminate.min_iter", section.get("min_iter")),
        whole(origin, "early_terminate.eta", section.get("eta", 3), at_least=2),
        column,
    )


def _baseline(origin: str, given: Any, parameters: Mapping[str, Parameter]) -> Mapping[str, Any]:
    baseline = mapping(origin, "compare.baseline", given)
    for key, value in baseline.items():
        known(origin, "compare.baseline.", [key], parameters)
        parameter = parameters[key]
        if not isinstance(parameter, Choice) or value not in parameter.values:
            raise ConfigError(f"compare.baseline.{key} in {origin} is {value!r}, which is no value of that parameter")
    missing = [key for key, one in parameters.items() if key not in (SEED, *baseline) and not fixed(one)]
    if baseline and missing:
        raise ConfigError(f"compare.baseline in {origin} fits several methods; give {', '.join(missing)} too")
    return baseline


def _folder_name(origin: str, given: Any) -> str:
    if not isinstance(given, str) or not given or not all(letter.isalnum() or letter in "_.-" for letter in given):
        raise ConfigError(f"name in {origin} becomes a folder: letters, digits and _ . - only, got {given!r}")
    return given
