"""Which model's adversarial images fool which other model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from configs.errors import UserError
from experiments.analysis.loading import Floats
from experiments.analysis.row import Row, where


@dataclass(frozen=True)
class Transfer:
    """Leaf accuracy of M models on D data sets of unchanged or adversarial images.

    datasets  as their manifests call them: those of `evaluation.save_adversarial` name the attack and its model's run.
    models    name, and stage where several were measured.
    accuracy  float64 (D, M), shares in [0, 1]; NaN where a model was not measured on a data set.
    samples   int64 (D, M), 0 where it was not.
    """

    datasets: tuple[str, ...]
    models: tuple[str, ...]
    accuracy: Floats
    samples: NDArray[np.int64]

    def table(self) -> str:
        """For a terminal, in percent; a line a data set, a column a model."""
        cells = [["", *self.models]]
        for name, line in zip(self.datasets, self.accuracy, strict=True):
            cells.append([name, *("-" if np.isnan(share) else f"{100 * share:.1f}" for share in line)])
        first, *widths = (max(map(len, column)) for column in zip(*cells, strict=True))
        aligned = ([name.ljust(first), *map(str.rjust, shares, widths)] for name, *shares in cells)
        return "\n".join("  ".join(line) for line in aligned)


def transfer_matrix(runs: Mapping[str, Sequence[Row]]) -> Transfer:
    """The matrix of several runs, from their figures on the images as they are stored.

    Args:
        runs: what to call a model -> rows of its runs, on as many data sets as there are.

    Raises:
        UserError: there is no clean leaf accuracy among the rows, or there are two for one place of the matrix.
    """
    found: dict[tuple[str, str], Row] = {}
    for name, rows in runs.items():
        leaves = [row for row in where(rows, metric="accuracy", level=0) if row.clean]
        several = len({row.stage for row in leaves}) > 1
        for row in leaves:
            place = row.dataset, f"{name} {row.stage}" if several else name
            if place in found:
                raise UserError(
                    f"model {place[1]!r} has two clean accuracies on {row.dataset!r}; give those of one seed"
                )
            found[place] = row
    if not found:
        raise UserError("there is no clean accuracy in these runs; evaluate each model on each data set first")
    datasets, models = (tuple(dict.fromkeys(place[side] for place in found)) for side in (0, 1))
    accuracy, samples = np.full((len(datasets), len(models)), np.nan), np.zeros((len(datasets), len(models)), np.int64)
    for (dataset, model), row in found.items():
        cell = datasets.index(dataset), models.index(model)
        accuracy[cell], samples[cell] = row.value, row.n
    return Transfer(datasets, models, accuracy, samples)
