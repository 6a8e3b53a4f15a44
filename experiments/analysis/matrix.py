"""The superclass matrix: at which level an attack aims, and what it leaves standing at every level."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from experiments.analysis import figure, names
from experiments.analysis.loading import Floats
from experiments.analysis.row import Row

CLEAN = "clean"
ANNOTATED = 12  # levels up to which a number fits into a cell
Place = tuple[str | None, int | None]
"""A tree and a level of it; (None, 0) is the leaves."""


@dataclass(frozen=True)
class Matrix:
    """Accuracy by prompt under one attack, at one stage, over M levels.

    attack    what a reader calls it, such as PGD-20, L-inf 2/255.
    aims      what it aims at: `CLEAN` (nothing), then the levels.
    levels    where the model is looked at, the leaves first.
    accuracy  float64 (M + 1, M), shares in [0, 1]; NaN where nothing was measured.
    samples   behind each share.
    """

    attack: str
    stage: str
    aims: tuple[str, ...]
    levels: tuple[str, ...]
    accuracy: Floats
    samples: int

    def table(self) -> str:
        """For a terminal, in percent; a line a level that is aimed at, a column a level that is looked at."""
        cells = [[f"{self.stage}, {self.attack}, aimed at", *self.levels]]
        for aim, line in zip(self.aims, self.accuracy, strict=True):
            cells.append([f"  {aim}", *("-" if np.isnan(share) else f"{100 * share:.1f}" for share in line)])
        first, *widths = (max(map(len, column)) for column in zip(*cells, strict=True))
        aligned = ([name.ljust(first), *map(str.rjust, shares, widths)] for name, *shares in cells)
        foot = f"Accuracy in percent by the prompts of each level (columns), n = {self.samples:,}."
        return "\n".join(["  ".join(line) for line in aligned] + [foot])


def matrices(rows: Iterable[Row]) -> list[Matrix]:
    """One for each stage, data set, seed and attack, in order of appearance; none where no superclass was attacked."""
    found = [row for row in rows if row.superclass and row.metric == "level_accuracy"]
    clean = [row for row in found if row.attack is None]
    groups: dict[tuple[object, ...], list[Row]] = {}
    for row in found:
        if row.attack is not None:
            groups.setdefault((*_source(row), str(row.attack_name).split(">")[0]), []).append(row)
    return [
        _matrix([row for row in clean if _source(row) == _source(attacked[0])], attacked)
        for attacked in groups.values()
    ]


def over_seeds(found: Mapping[str, Sequence[Matrix]]) -> list[Matrix]:
    """Of each method's matrices, one a run, the mean over those of one attack, stage and set of levels; its stage is
    called after the method."""
    means = []
    for method, members in found.items():
        groups: dict[tuple[object, ...], list[Matrix]] = {}
        for one in members:
            groups.setdefault((one.attack, one.stage, one.aims, one.levels, one.samples), []).append(one)
        for alike in groups.values():
            mean = np.mean([one.accuracy for one in alike], axis=0)
            means.append(replace(alike[0], stage=method, accuracy=mean))
    return means


@figure.styled
def heat_maps(shown: Sequence[Matrix]) -> Figure | None:
    """Matrices side by side, an attack's stages next to each other; None for no matrix."""
    if not shown:
        return None
    size = len(shown[0].levels)
    attacks = list(dict.fromkeys(matrix.attack for matrix in shown))
    columns = max(sum(matrix.attack == attack for matrix in shown) for attack in attacks)
    drawing, panels = figure.new((1.8 + 0.42 * (size + 1)) * len(attacks), rows=len(attacks), columns=columns)
    grid = dict(
        zip(attacks, (panels[first : first + columns] for first in range(0, len(panels), columns)), strict=True)
    )
    for axes in panels:
        axes.set_axis_off()
    for attack, row in grid.items():
        for axes, matrix in zip(row, [matrix for matrix in shown if matrix.attack == attack], strict=False):
            image = _heat_map(axes, matrix, labelled=axes is row[0])
    drawing.colorbar(image, ax=panels, label="accuracy by prompt, %", shrink=0.8)
    return drawing


def _heat_map(axes: Axes, matrix: Matrix, labelled: bool) -> AxesImage:
    axes.set_axis_on()
    image = axes.imshow(100 * matrix.accuracy, cmap="cividis", vmin=0, vmax=100, aspect="auto")
    axes.set_xticks(range(len(matrix.levels)), matrix.levels, rotation=40, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(matrix.aims)), matrix.aims if labelled else [""] * len(matrix.aims))
    axes.axhline(0.5, color="white", linewidth=3)  # clean pictures above, attacked ones below
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    axes.set_title(f"{matrix.stage}: {matrix.attack}", fontsize=11)
    axes.set_xlabel("level looked at")
    if labelled:
        axes.set_ylabel("level aimed at")
    if len(matrix.levels) <= ANNOTATED:
        for (down, across), share in np.ndenumerate(matrix.accuracy):
            colour = "white" if share < 0.6 else figure.INK  # on the dark or the light half of the colours
            axes.text(across, down, f"{100 * share:.0f}", ha="center", va="center", color=colour, fontsize=10)
    return image


def _matrix(clean: Sequence[Row], attacked: Sequence[Row]) -> Matrix:
    places = list(dict.fromkeys((row.tree, row.level) for row in attacked))
    aims: list[Place | None] = [None, *dict.fromkeys(_aim(row) for row in attacked)]
    accuracy = np.full((len(aims), len(places)), np.nan)
    for aim, rows in ((None, clean), *((aim, [row for row in attacked if _aim(row) == aim]) for aim in aims[1:])):
        for row in rows:
            accuracy[aims.index(aim), places.index((row.tree, row.level))] = row.value
    told = [names.level(*place) for place in places]
    aimed = [CLEAN if aim is None else names.level(*aim) for aim in aims]
    first = attacked[0]
    return Matrix(names.attack(first.attack), first.stage, tuple(aimed), tuple(told), accuracy, first.n)


def _aim(row: Row) -> Place:
    aim = (row.attack or {})["aim"]
    return aim["tree"], aim["level"]


def _source(row: Row) -> tuple[object, ...]:
    return row.stage, row.dataset, row.split, row.seed
