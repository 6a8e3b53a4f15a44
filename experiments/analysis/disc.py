"""Class trees on the Poincare disc: the root at the centre, the leaves near the rim, edges along geodesics."""

from collections.abc import Mapping, Sequence
from math import ceil, sqrt
from textwrap import shorten

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from matplotlib.transforms import Bbox

from experiments.analysis import figure
from experiments.analysis.layout import Layout, Reals, geodesics, layout, level_radius
from lightning_modules.hierarchy import Tree

COLOURS = (figure.BLUE, figure.VERMILLION, figure.GREEN, figure.PURPLE, figure.ORANGE, figure.SKY)
GROUND = "#fafbfc"
BEHIND = {"boxstyle": "round,pad=0.1", "facecolor": GROUND, "alpha": 0.8, "linewidth": 0}  # a name
SIDE = 10.0  # inches
NAMES = 1.03  # where those of the leaves start; the disc's radius is 1
LEAF_FONT, INNER_FONT = (5.5, 9.0), (6.5, 12.0)  # points, smallest and largest
LINE, LETTER = 1.15, 0.6  # room that a name takes, in font sizes
LONGEST = 30  # letters of a leaf's name


@figure.styled
def discs(trees: Sequence[Tree], radii: Mapping[str, Sequence[Reals]] | None = None) -> Figure:
    """A disc a tree, in rows. A colour is a top class. Leaves are named outside the rim, each k-th where they are too
    many; of the classes above, the largest first, those that have room.

    Args:
        radii: tree's name -> as for `layout`; without a tree's, its levels lie on circles.
    """
    columns = ceil(sqrt(len(trees)))
    rows = ceil(len(trees) / columns)
    drawing = Figure(figsize=(SIDE * columns, SIDE * rows))
    FigureCanvasAgg(drawing)
    for panel, tree in enumerate(trees):
        row, column = divmod(panel, columns)
        axes = drawing.add_axes((column / columns, 1 - (row + 1) / rows, 1 / columns, 1 / rows))
        _disc(axes, tree, (radii or {}).get(tree.name))
    return drawing


def _disc(axes: Axes, tree: Tree, radii: Sequence[Reals] | None) -> None:
    found = layout(tree, radii)
    axes.axis("off")
    axes.add_patch(Circle((0, 0), 1, facecolor=GROUND, edgecolor=figure.GRID, linewidth=1.5))
    if radii is None:
        for level in range(tree.depth + 1):
            axes.add_patch(Circle((0, 0), level_radius(tree, level), fill=False, edgecolor=figure.GRID, linewidth=0.6))
    _title(axes, tree)
    _edges(axes, tree, found)
    _nodes(axes, found)
    _leaf_names(axes, tree, found)
    _inner_names(axes, tree, found)


def _title(axes: Axes, tree: Tree) -> None:
    sizes = "\n".join(f"{len(names):,}" for names in reversed(tree.levels))
    axes.text(0.02, 0.98, tree.name, va="top", fontsize=14, transform=axes.transAxes)
    axes.text(0.02, 0.95, f"{sizes} leaves", va="top", fontsize=9, color=figure.MUTED, transform=axes.transAxes)


def _edges(axes: Axes, tree: Tree, found: Layout) -> None:
    for level, children in enumerate(found.points):
        parents = found.points[level + 1][list(tree.parents[level])] if level < tree.depth else 0 * children
        axes.add_collection(
            LineCollection(
                [np.column_stack([path.real, path.imag]) for path in geodesics(parents, children)],
                colors=_colours(found, level),
                linewidths=0.7 + 6 * np.sqrt(found.shares[level]) * (level > 0),
                alpha=0.75,
                capstyle="round",
                zorder=1 + level / len(found.points),
            )
        )


def _nodes(axes: Axes, found: Layout) -> None:
    axes.scatter([0], [0], s=40, c=figure.INK, zorder=2)
    for level, points in enumerate(found.points):
        sizes = 6 + 300 * found.shares[level] * (level > 0)
        colours = _colours(found, level)
        axes.scatter(points.real, points.imag, s=sizes, c=colours, edgecolors="white", linewidths=0.5, zorder=3)


def _leaf_names(axes: Axes, tree: Tree, found: Layout) -> None:
    """Also sets the limits of the axes, to what the longest name needs."""
    names = [shorten(name, width=LONGEST, placeholder="...") for name in tree.levels[0]]
    room = found.pitch * SIDE * 72 * 0.37  # points along the rim, whose radius is about 0.37 of the side
    every = ceil(LEAF_FONT[0] * LINE / room)
    size = float(np.clip(room * every / LINE, *LEAF_FONT))
    half = NAMES / (1 - LETTER * size * max(map(len, names)) / (SIDE * 72 / 2))
    axes.set(xlim=(-half, half), ylim=(-half, half), aspect="equal")
    if every > 1:
        told = f"one leaf in {every} is named"
        axes.text(0.02, 0.02, told, fontsize=9, color=figure.MUTED, transform=axes.transAxes)
    colours = [_dark(colour) for colour in _colours(found, 0)]
    for leaf in found.order[::every]:
        place, angle = NAMES * np.exp(1j * found.angles[leaf]), float(np.degrees(found.angles[leaf]))
        left = bool(place.real < 0)
        axes.text(
            place.real, place.imag, names[leaf], fontsize=size, color=colours[leaf],
            rotation=angle + 180 * left, rotation_mode="anchor", ha="right" if left else "left", va="center",
        )  # fmt: skip


def _inner_names(axes: Axes, tree: Tree, found: Layout) -> None:
    classes = [(level, place) for level in range(1, tree.depth + 1) for place in range(len(tree.levels[level]))]
    taken: list[Bbox] = []
    for level, place in sorted(classes, key=lambda each: (-found.shares[each[0]][each[1]], -each[0])):
        point, size = found.points[level][place], 6 + 14 * sqrt(found.shares[level][place])
        text = axes.text(
            point.real, point.imag, tree.levels[level][place], fontsize=float(np.clip(size, *INNER_FONT)), zorder=4,
            ha="center", va="center", bbox=BEHIND,
        )  # fmt: skip
        box = text.get_window_extent()  # final, as the figure's size and the limits are
        outside = np.hypot(*axes.transData.inverted().transform(box.corners()).T).max() > NAMES
        if outside or any(box.overlaps(other) for other in taken):
            text.remove()
        else:
            taken.append(box)


def _colours(found: Layout, level: int) -> list[str]:
    return [_colour(int(sector), int(found.sectors[0].max()) + 1) for sector in found.sectors[level]]


def _colour(sector: int, sectors: int) -> str:
    """Neighbours differ, the last one and the first one included. Above the sectors there is none."""
    if sector < 0:
        return figure.MUTED
    closes = sector == sectors - 1 and sector % len(COLOURS) == 0 and sector > 0
    return COLOURS[2 if closes else sector % len(COLOURS)]


def _dark(colour: str) -> tuple[float, ...]:
    """The same for text: light ones are hard to read."""
    return tuple(0.7 * own + 0.3 * ink for own, ink in zip(to_rgb(colour), to_rgb(figure.INK), strict=True))
