"""Leaf accuracy as an attack grows, by method, over seeds. None where nothing was varied."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.analysis import figure
from experiments.analysis.compared import methods
from experiments.analysis.comparison import Spread
from experiments.analysis.curves import COLOURS, MARKERS
from experiments.analysis.family import Family, labels, over_radii, over_steps
from experiments.analysis.runs import Runs

COLUMNS = 3
Values = dict[float, dict[int, float]]  # of the varied setting -> seed -> accuracy


@dataclass(frozen=True)
class Panel:
    """One attack under which methods are compared, whose `varied` setting has several values."""

    family: Family
    methods: Mapping[str, Values]


@figure.styled
def accuracy_by_radius(runs: Runs, by: Sequence[str] = (), stage: str = "after") -> Figure | None:
    """Leaf accuracy against the attack's radius: a panel an attack, a colour a method; the mean over seeds and, where
    there are several, its 95 % bootstrap interval. Clean accuracy is at 0.

    Args:
        by: what tells methods apart, see `experiments.analysis.compared.methods`.
    """
    panels = [panel for panel in _panels(runs, by, stage, radii=True) if panel.family.curved]
    drawing = _drawn(panels)
    for axes, panel in zip(drawing.axes if drawing else (), panels, strict=False):
        axes.set_xlabel(f"radius of the attack, {panel.family.panel}, 1/255")
    return drawing


@figure.styled
def accuracy_by_steps(runs: Runs, by: Sequence[str] = (), stage: str = "after") -> Figure | None:
    """The same against the number of steps, on a logarithmic axis."""
    panels = _panels(runs, by, stage, radii=False)
    drawing = _drawn(panels)
    for axes, panel in zip(drawing.axes if drawing else (), panels, strict=False):
        counts = sorted({at for values in panel.methods.values() for at in values})
        axes.set_xscale("log")
        axes.set_xticks(counts, [f"{count:g}" for count in counts])
        axes.set_xticks([], minor=True)
        axes.set_xlabel(f"steps of the attack, {panel.family.panel}")
    return drawing


def _panels(runs: Runs, by: Sequence[str], stage: str, radii: bool) -> list[Panel]:
    """Families of the same setting, but for the seed, from all runs."""
    called = methods(runs, by)
    families: dict[str, Family] = {}
    found: dict[str, dict[str, Values]] = {}
    for outcome in runs.outcomes:
        for family in (over_radii if radii else over_steps)(outcome.rows, [stage]):
            key = json.dumps({**family.setting, "seed": None}, sort_keys=True)
            families.setdefault(key, family)
            values = found.setdefault(key, {}).setdefault(called[outcome.run], {})
            for row in family.points[stage]:
                values.setdefault(family.at(row), {}).setdefault(outcome.seed, row.value)
    return [Panel(families[key], found[key]) for key in families]


def _drawn(panels: Sequence[Panel]) -> Figure | None:
    """Without horizontal axes."""
    if not panels:
        return None
    columns = min(len(panels), COLUMNS)
    lines = ceil(len(panels) / columns)
    drawing, axes = figure.new(4.6 if lines == 1 else 3.4 * lines, lines, columns)
    order = list(dict.fromkeys(method for panel in panels for method in panel.methods))
    titles = labels([panel.family for panel in panels])
    for place, shown in enumerate(axes):
        shown.set_visible(place < len(panels))
        figure.percent_axis(shown, "accuracy, %" if place % columns == 0 else "")
    for shown, panel, title in zip(axes, panels, titles, strict=False):
        shown.set_title(title)
        for method, values in panel.methods.items():
            _curve(shown, method, values, order.index(method))
    handles = {
        label: handle for shown in axes for handle, label in zip(*shown.get_legend_handles_labels(), strict=True)
    }
    figure.legend_below(drawing, handles)
    return drawing


def _curve(axes: Axes, method: str, values: Values, place: int) -> None:
    at = sorted(values)
    spreads = [Spread.of(values[each]) for each in at]
    means = [100 * spread.mean for spread in spreads]
    bounds = [spread.interval or (spread.mean, spread.mean) for spread in spreads]
    colour = COLOURS[place % len(COLOURS)]
    axes.fill_between(
        at, [100 * low for low, _ in bounds], [100 * high for _, high in bounds], color=colour, alpha=0.15, linewidth=0
    )
    axes.plot(
        at, means, color=colour, marker=MARKERS[place % len(MARKERS)], linewidth=1.8, markersize=6, label=method,
        clip_on=False,
    )  # fmt: skip
