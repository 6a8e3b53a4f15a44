"""What is varied: one of several values, or a number in a range."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import exp, isfinite, log
from random import Random
from typing import Any

from configs.errors import ConfigError
from experiments.sweep.checks import known, mapping, one_of

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
            return rounded(exp(random.uniform(log(self.low), log(self.high))))
        return rounded(random.uniform(self.low, self.high))


Parameter = Choice | Range


def rounded(drawn: float) -> float:
    """To six digits."""
    return float(f"{drawn:.{DIGITS}g}")


def fixed(parameter: Parameter) -> bool:
    """Whether there is nothing to choose."""
    return isinstance(parameter, Choice) and len(parameter.values) == 1


def parse(origin: str, key: str, given: Any, method: str) -> Parameter:
    """A parameter as a sweep's file `origin` has it under `key`.

    Raises:
        ConfigError: it is none, or a range in a grid.
    """
    given = mapping(origin, key, given)
    known(origin, f"{key}.", given, ("value", "values", "min", "max", "distribution"))
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
    distribution = one_of(origin, f"{key}.distribution", given.get("distribution", default), DISTRIBUTIONS)
    if distribution == "int_uniform" and not whole:
        raise ConfigError(f"{key} in {origin} is int_uniform and needs whole numbers, got {low!r} and {high!r}")
    if distribution == "log_uniform_values" and low <= 0:
        raise ConfigError(f"{key} in {origin} is log_uniform_values and needs min > 0, got {low!r}")
    return Range(low, high, distribution)
