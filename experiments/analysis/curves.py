"""Plots of accuracy as an attack grows: over its radius, and over its steps. None where nothing was varied."""

from collections.abc import Sequence
from math import ceil
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from experiments.analysis import figure
from experiments.analysis.family import Family, labels, over_radii, over_steps
from experiments.analysis.row import Row
from experiments.analysis.table import interval, stages_of

COLOURS = (figure.BLUE, figure.VERMILLION, figure.GREEN, figure.PURPLE, figure.ORANGE, figure.SKY)
MARKERS = "osD^vPX"  # their number has no factor in common with that of the colours: 42 pairs before one repeats
STYLES: tuple[Literal["-", "--", ":", "-."], ...] = ("-", "--", ":", "-.")  # from the last stage back
COLUMNS = 3


@figure.styled
def accuracy_by_radius(rows: Sequence[Row]) -> Figure | None:
    """Leaf accuracy against the radius: a panel a norm, a colour an attack, a line style a stage.

    Attacks that were run within one radius only are marks without a line.
    """
    stages = stages_of(rows)
    drawing, panels = _drawn(over_radii(rows, stages), stages)
    for norm, axes in panels.items():
        axes.set_xlabel(f"radius of the attack, {norm}, 1/255")
        axes.set_xlim(left=0 - 0.02 * axes.get_xlim()[1])
    return drawing


@figure.styled
def accuracy_by_steps(rows: Sequence[Row]) -> Figure | None:
    """Leaf accuracy against the number of steps, on a logarithmic axis: a panel a radius, otherwise as over radii."""
    stages = stages_of(rows)
    families = over_steps(rows, stages)
    drawing, panels = _drawn(families, stages)
    for radius, axes in panels.items():
        shown = [family for family in families if family.panel == radius]
        counts = sorted({family.at(row) for family in shown for rows in family.points.values() for row in rows})
        axes.set_xscale("log")
        axes.set_xticks(counts, [f"{count:g}" for count in counts])
        axes.set_xticks([], minor=True)
        axes.set_xlabel("steps of the attack")
        axes.set_title(radius)
    return drawing


def _drawn(families: Sequence[Family], stages: Sequence[str]) -> tuple[Figure | None, dict[str, Axes]]:
    """The figure without horizontal axes, and panel -> its axes."""
    titles = list(dict.fromkeys(family.panel for family in families))
    if not titles:
        return None, {}
    columns = min(len(titles), COLUMNS)
    lines = ceil(len(titles) / columns)
    drawing, axes = figure.new(4.4 if lines == 1 else 3.2 * lines, lines, columns)
    panels = dict(zip(titles, axes, strict=False))
    called = labels(families)
    looks = {
        label: (COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)]) for i, label in enumerate(dict.fromkeys(called))
    }
    for family, label in zip(families, called, strict=True):
        for age, stage in enumerate(reversed(stages)):
            _curve(panels[family.panel], family, family.points[stage], *looks[label], age)
    for place, panel in enumerate(axes):
        panel.set_visible(place < len(titles))
        figure.percent_axis(panel, "accuracy, %" if place % columns == 0 else "")
    _legend(drawing, looks, stages)
    return drawing, panels


def _curve(axes: Axes, family: Family, rows: Sequence[Row], colour: str, marker: str, age: int) -> None:
    """One stage of a family with its 95 % band; `age` counts stages from the last, the only one with filled marks."""
    at, shares = [family.at(row) for row in rows], [100 * row.value for row in rows]
    bounds = [interval(row) or (row.value, row.value) for row in rows]
    low, high = [100 * bound[0] for bound in bounds], [100 * bound[1] for bound in bounds]
    if len(rows) > 1:
        axes.fill_between(at, low, high, color=colour, alpha=0.1, linewidth=0)
    else:
        axes.vlines(at, low, high, color=colour, linewidth=1)
    style = STYLES[age % len(STYLES)] if len(rows) > 1 else "none"
    face = "white" if age else colour
    axes.plot(
        at, shares, linestyle=style, marker=marker, color=colour, mfc=face, linewidth=1.8, markersize=6, clip_on=False
    )


def _legend(drawing: Figure, looks: dict[str, tuple[str, str]], stages: Sequence[str]) -> None:
    attacks = [
        Line2D([], [], color=colour, marker=marker, markersize=6, linewidth=1.8, label=label)
        for label, (colour, marker) in looks.items()
    ]
    styles = [
        Line2D([], [], color=figure.INK, linestyle=STYLES[age % len(STYLES)], marker="o", label=stage,
               mfc="white" if age else figure.INK, linewidth=1.8)
        for age, stage in enumerate(reversed(stages))
    ]  # fmt: skip
    drawing.legend(
        handles=[*attacks, *reversed(styles)], loc="outside lower center", ncols=4, fontsize=10, handlelength=3
    )
