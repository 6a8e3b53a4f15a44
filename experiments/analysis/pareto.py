"""Which methods nobody beats in two figures at once."""

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from configs.errors import UserError, did_you_mean
from experiments.analysis import figure, names
from experiments.analysis.comparison import Comparison, Spread
from experiments.analysis.curves import COLOURS, MARKERS

if TYPE_CHECKING:
    import pandas as pd

FRONT = "front"


def pareto(table: "Comparison | pd.DataFrame", x: str, y: str) -> "pd.DataFrame":
    """The columns x and y of a table, and whether each line is on their Pareto front.

    A line is on the front where no other is as good in both and better in one; lines that are equal in both are on it
    together, and one that lacks a figure is not. More is better, but for what `names.LOWER` has.

    Args:
        table: a comparison, whose means over seeds count; or a line a method; or a tidy frame (`Runs.frame`), of which
            each run at each stage is a line.

    Raises:
        UserError: there is no such column.
    """
    wide = _wide(table)
    for name in (x, y):
        if name not in wide.columns:
            raise UserError(f"there is no figure '{name}' here; {did_you_mean(name, map(str, wide.columns))}")
    found = wide[[x, y]].copy()
    signs = [-1.0 if names.lower_is_better(name) else 1.0 for name in (x, y)]
    return found.assign(**{FRONT: _undominated(found.to_numpy(dtype=float) * signs)})


@figure.styled
def trade_off(comparison: Comparison, x: str, y: str) -> Figure:
    """Methods by two figures, with 95 % bootstrap intervals over seeds; those on the Pareto front joined and filled.

    Raises UserError where one of the two is not in the comparison.
    """
    found = pareto(comparison, x, y).dropna()
    drawing, (axes,) = figure.new(4.8)
    front = found[found[FRONT]].sort_values([x, y])
    axes.plot(front[x] * _scale(x), front[y] * _scale(y), color=figure.GRID, linewidth=4, zorder=1)
    for place, method in enumerate(comparison.methods):
        spreads = comparison.spread(method, x), comparison.spread(method, y)
        if spreads[0] and spreads[1]:
            _mark(axes, method, (spreads[0], spreads[1]), (_scale(x), _scale(y)), place, bool(found.at[method, FRONT]))
    axes.set_xlabel(_title(x))
    axes.set_ylabel(_title(y))
    axes.grid(color=figure.GRID)
    axes.set_axisbelow(True)
    handles, labels = axes.get_legend_handles_labels()
    figure.legend_below(drawing, dict(zip(labels, handles, strict=True)))
    return drawing


def _wide(table: "Comparison | pd.DataFrame") -> "pd.DataFrame":
    if isinstance(table, Comparison):
        return table.means
    if {"run", "stage", "name", "value"} <= set(table.columns):
        return table.pivot(index=["run", "stage"], columns="name", values="value")
    return table


def _undominated(points: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(N,) of points (N, 2), where more is better."""
    no_worse: NDArray[np.bool_] = np.all(points[None] >= points[:, None], axis=-1)
    better: NDArray[np.bool_] = np.any(points[None] > points[:, None], axis=-1)
    beaten: NDArray[np.bool_] = np.any(no_worse & better, axis=1)
    known: NDArray[np.bool_] = ~np.any(np.isnan(points), axis=1)
    return ~beaten & known


def _mark(
    axes: Axes, method: str, spreads: tuple[Spread, Spread], scales: tuple[float, float], place: int, front: bool
) -> None:
    (x, wide), (y, high) = (_reach(spread, scale) for spread, scale in zip(spreads, scales, strict=True))
    colour = COLOURS[place % len(COLOURS)]
    axes.errorbar(
        x, y, xerr=wide, yerr=high, fmt=MARKERS[place % len(MARKERS)], color=colour, label=method,
        mfc=colour if front else "white", capsize=3, elinewidth=1, markersize=8,
    )  # fmt: skip


def _reach(spread: Spread, scale: float) -> tuple[float, list[list[float]]]:
    """The mean, and how far below and above it the interval reaches; rounding may put an end on the wrong side."""
    low, high = spread.interval or (spread.mean, spread.mean)
    return scale * spread.mean, [[scale * max(spread.mean - low, 0)], [scale * max(high - spread.mean, 0)]]


def _scale(name: str) -> float:
    return 100.0 if name.partition("/")[0] in names.METRICS else 1.0


def _title(name: str) -> str:
    """`accuracy, pgd20, leaf, %`, with an arrow to what is better where that is down."""
    metric, *rest = name.split("/")
    unit = ", %" if metric in names.METRICS else ""
    return ", ".join([names.metric(metric), *rest]) + unit + (" (lower is better)" if metric in names.LOWER else "")
