"""Plots of what was measured. Each takes what was loaded and returns a Figure, or None where it has nothing to show."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.analysis import figure, names
from experiments.analysis.loading import Evidence, Floats
from experiments.analysis.row import SWEEP, Row, where
from experiments.analysis.table import Line, interval, lines, stages_of, value

IN_DISTRIBUTION = ("test", "val")
BINS = 50
BARS = 6  # groups of bars side by side, whose names have room
SMOOTH_FROM = 60  # points from which on a training curve gets a running mean


@figure.styled
def accuracy_bars(rows: Sequence[Row]) -> Figure | None:
    """Leaf accuracy on clean pictures and under each attack, a bar a stage, with 95 % intervals."""
    stages = stages_of(rows)
    leaves = [line for line in lines(rows, stages) if line.first.metric == "accuracy" and line.first.level == 0]
    if not leaves:
        return None
    rowed = [leaves[first : first + BARS] for first in range(0, len(leaves), BARS)]
    drawing, panels = figure.new(3.6 * len(rowed), rows=len(rowed))
    for axes, shown in zip(panels, rowed, strict=True):
        _bar_row(axes, shown, stages, places=min(max(len(leaves), 3), BARS))
    panels[0].legend(loc="upper right", ncols=len(stages))
    return drawing


def _bar_row(axes: Axes, leaves: Sequence[Line], stages: Sequence[str], places: int) -> None:
    width = 0.8 / len(stages)
    for number, stage in enumerate(stages):
        shown = [(place, line.rows[stage]) for place, line in enumerate(leaves) if stage in line.rows]
        centres = [place + (number - (len(stages) - 1) / 2) * width for place, _ in shown]
        _bars(axes, centres, [row for _, row in shown], width, stage, figure.STAGES[number % len(figure.STAGES)])
    axes.set_xticks(range(len(leaves)), [_in_lines(line) for line in leaves])
    axes.set_xlim(-0.6, places - 0.4)
    figure.percent_axis(axes, "accuracy, %")
    axes.set_ylim(0, 112)


def _bars(axes: Axes, places: Sequence[float], rows: Sequence[Row], width: float, stage: str, colour: str) -> None:
    heights = [100 * row.value for row in rows]
    bounds = [interval(row) or (row.value, row.value) for row in rows]
    # Rounding in a share may put the end of its interval a hair on the wrong side of it.
    below = [max(height - 100 * low, 0) for height, (low, _) in zip(heights, bounds, strict=True)]
    above = [max(100 * high - height, 0) for height, (_, high) in zip(heights, bounds, strict=True)]
    style = {"ecolor": figure.INK, "capsize": 3, "elinewidth": 1}
    axes.bar(places, heights, 0.92 * width, color=colour, label=stage, yerr=[below, above], error_kw=style)
    for place, row, height, up in zip(places, rows, heights, above, strict=True):
        axes.annotate(value(row), (place, height + up), (0, 3), textcoords="offset points", ha="center", fontsize=10)


def _in_lines(line: Line) -> str:
    return line.section.removeprefix("under ").replace(", ", "\n")


@figure.styled
def accuracy_by_level(rows: Sequence[Row]) -> Figure | None:
    """Accuracy from the leaves up, a panel a tree: clean pictures full, the first attack dashed."""
    stages = stages_of(rows)
    found = [row for row in rows if row.metric == "accuracy" and row.stage in stages and row.attack_name != SWEEP]
    trees = list(dict.fromkeys(row.tree for row in found if row.tree))
    if not trees:
        return None
    drawing, panels = figure.new(3.8, columns=len(trees))
    for axes, tree in zip(panels, trees, strict=True):
        climbing = sorted((row for row in found if row.level == 0 or row.tree == tree), key=lambda row: row.level or 0)
        _levels(axes, climbing, stages)
        depth = climbing[-1].level or 0
        axes.set_xticks(range(depth + 1), [_level(tree, level) for level in range(depth + 1)])
        axes.set_title(f"{tree} tree")
        figure.percent_axis(axes, "accuracy, %")
    drawing.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=10)
    return drawing


def _levels(axes: Axes, rows: Sequence[Row], stages: Sequence[str]) -> None:
    """A curve a stage and attack over the levels of one tree, `rows` leaves first."""
    attacks = list(dict.fromkeys(row.attack_name for row in rows))[:2]
    for stage, colour in zip(stages, figure.STAGES, strict=False):
        for attack, style in zip(attacks, ("-o", "--s"), strict=False):
            curve = where(rows, stage=stage, attack_name=attack)
            if curve:
                levels, shares = [row.level or 0 for row in curve], [100 * row.value for row in curve]
                label = f"{stage}, {names.attack(curve[0].attack)}"
                axes.plot(levels, shares, style, color=colour, label=label, linewidth=2)


def _level(tree: str, level: int) -> str:
    name = names.level(tree, level).removeprefix(f"{tree} ")
    return name.replace(" (", "\n(")


@figure.styled
def score_histograms(evidence: Mapping[str, Evidence], rows: Sequence[Row], score: str = "mcm") -> Figure | None:
    """How an open-world score spreads over in-distribution and OOD pictures, a panel a stage with its own scale."""
    order = stages_of(rows)
    known = {stage: kept.scores[score] for stage, kept in evidence.items() if score in kept.scores and stage in order}
    stages = sorted(known, key=order.index)
    if not stages:
        return None
    drawing, panels = figure.new(3.6, columns=len(stages))
    for axes, stage in zip(panels, stages, strict=True):
        _histograms(
            axes,
            known[stage],
            {row.split: row for row in where(rows, stage=stage, score=score, metric="auroc", attack_name=None)},
        )
        axes.set_title(stage)
        axes.set_xlabel(f"{names.score(score)} score (higher: more in-distribution)")
    panels[0].set_ylabel("share of pictures")
    return drawing


def _histograms(axes: Axes, splits: Mapping[str, Floats], measured: Mapping[str, Row]) -> None:
    edges = np.histogram_bin_edges(np.concatenate(list(splits.values())), BINS)
    others = [name for name in splits if name not in IN_DISTRIBUTION]
    for name in (name for name in splits if name in IN_DISTRIBUTION):
        heights = np.histogram(splits[name], edges)[0] / len(splits[name])
        axes.stairs(
            heights, edges, fill=True, color=figure.BLUE, alpha=0.35, label=f"in-distribution ({len(splits[name]):,})"
        )
    for name, colour, style in zip(others, figure.SERIES, ("-", "--", "-.", ":", "-"), strict=False):
        heights = np.histogram(splits[name], edges)[0] / len(splits[name])
        area = f", AUROC {value(measured[name])}" if name in measured else ""
        label = f"{names.split(name)} ({len(splits[name]):,}{area})"
        axes.stairs(heights, edges, color=colour, linestyle=style, linewidth=1.8, label=label)
    axes.set_ylim(bottom=0)
    axes.margins(y=0.35)
    axes.legend(loc="upper center", fontsize=9, bbox_to_anchor=(0.5, -0.2))


@figure.styled
def training_curves(curves: Mapping[str, tuple[Floats, Floats]]) -> Figure | None:
    """What training logged: losses, batch accuracies, and the share of pictures whose gradient was zero."""
    train = {
        name.removeprefix("train/"): curve
        for name, curve in curves.items()
        if name.startswith("train/") and len(curve[0])
    }
    groups = [
        ("loss", [name for name in train if name.startswith("loss")]),
        ("batch accuracy, %", [name for name in train if name.endswith("accuracy")]),
        ("zero gradients, %", [name for name in train if name == "zero_gradient"]),
    ]
    groups = [(title, members) for title, members in groups if members]
    if not groups:
        return None
    drawing, panels = figure.new(3.6, columns=len(groups))
    for axes, (title, members) in zip(panels, groups, strict=True):
        for name, colour in zip(members, (figure.BLUE, *figure.SERIES), strict=False):
            steps, values = train[name]
            _curve(axes, steps, values * (100 if "%" in title else 1), name.replace("_", " "), colour)
        axes.set_title(title)
        axes.set_xlabel("step")
        low, high = axes.dataLim.intervaly
        axes.set_ylim(min(0.0, low), 1.05 * high or 1.0)
        axes.grid(axis="y", color=figure.GRID)
        axes.legend(fontsize=9, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.2))
    return drawing


def _curve(axes: Axes, steps: Floats, values: Floats, label: str, colour: str) -> None:
    if len(values) < SMOOTH_FROM:
        axes.plot(steps, values, color=colour, label=label)
        return
    window = len(values) // 20
    means = np.convolve(values, np.ones(window) / window, mode="valid")
    axes.plot(steps, values, color=colour, alpha=0.25, linewidth=0.8)
    axes.plot(steps[window - 1 :], means, color=colour, label=f"{label}, mean of {window}")
