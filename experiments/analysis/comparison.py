"""Methods side by side: mean and spread over seeds, and the difference from a baseline at the same seeds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import TYPE_CHECKING

from experiments.analysis.interval import bootstrap

if TYPE_CHECKING:
    import pandas as pd

Table = Mapping[str, Mapping[str, Mapping[int, float]]]  # column -> method -> seed -> value


@dataclass(frozen=True)
class Spread:
    """Over seeds: the mean, the sample standard deviation, and the 95 % bootstrap interval of the mean; the last two
    are None for a single seed."""

    seeds: tuple[int, ...]
    mean: float
    deviation: float | None
    interval: tuple[float, float] | None

    @staticmethod
    def of(values: Mapping[int, float]) -> "Spread":
        """Of values by seed, one at least."""
        found = [values[seed] for seed in sorted(values)]
        deviation = stdev(found) if len(found) > 1 else None
        return Spread(tuple(sorted(values)), fmean(found), deviation, bootstrap(found))


@dataclass(frozen=True)
class Difference:
    """Method minus baseline over the seeds that both have; `agreeing` of them have the sign of the mean."""

    spread: Spread
    agreeing: int

    @staticmethod
    def of(values: Mapping[int, float], baseline: Mapping[int, float]) -> "Difference | None":
        """None where they share no seed."""
        paired = {seed: value - baseline[seed] for seed, value in values.items() if seed in baseline}
        if not paired:
            return None
        spread = Spread.of(paired)
        return Difference(spread, sum(spread.mean * change > 0 for change in paired.values()))


@dataclass(frozen=True)
class Comparison:
    """What runs found; `experiments.analysis.tabular` writes it.

    baseline     the method that the others are paired with.
    exclusions   what was left out and why; doubts: what the checks of the attacks say; provenance: where it is from.
                 A sentence each.
    """

    title: str
    baseline: str
    table: Table
    exclusions: Sequence[str] = ()
    doubts: Sequence[str] = ()
    provenance: Sequence[str] = ()

    @property
    def methods(self) -> tuple[str, ...]:
        """In the order of the runs."""
        return tuple(dict.fromkeys(method for values in self.table.values() for method in values))

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of figures."""
        return tuple(self.table)

    @property
    def means(self) -> "pd.DataFrame":
        """Over seeds: a line a method, a column a figure; NaN where it was not measured."""
        import pandas as pd

        found = {name: {method: fmean(of.values()) for method, of in own.items()} for name, own in self.table.items()}
        return pd.DataFrame(found, index=list(self.methods), columns=list(self.columns)).rename_axis("method")

    def spread(self, method: str, column: str) -> Spread | None:
        """None where the method was not measured."""
        values = self.table[column].get(method)
        return Spread.of(values) if values else None

    def difference(self, method: str, column: str) -> Difference | None:
        """From the baseline; None for the baseline itself, and where the two share no seed."""
        if method == self.baseline:
            return None
        values = self.table[column]
        return Difference.of(values.get(method, {}), values.get(self.baseline, {}))
