"""Clean pictures, what the adversary added, and what became of them."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from experiments.analysis import figure
from experiments.analysis.loading import Pictures

SHOWN = 8  # as many as a page of 1000 pixels shows at a readable size
GREY = 127
LABEL_LENGTH = 14


def amplification(pictures: Pictures) -> int:
    """The whole factor that makes the largest perturbation shown as strong as a picture's range allows."""
    largest = int(np.abs(_added(pictures)[:SHOWN]).max())
    return max(GREY // largest, 1) if largest else 1


@figure.styled
def grid(pictures: Pictures) -> Figure:
    """The first pictures, a column each: clean, perturbation (amplified around grey), adversarial, with predictions."""
    count = min(len(pictures.label), SHOWN)
    factor = amplification(pictures)
    drawing, panels = figure.new(4.6, rows=3, columns=SHOWN)
    shown = np.clip(GREY + factor * _added(pictures), 0, 255).astype(np.uint8)
    rows: list[tuple[str, NDArray[np.uint8], NDArray[np.int64] | None]] = [
        ("clean", pictures.clean, pictures.clean_prediction),
        (f"perturbation x{factor}", shown, None),
        ("adversarial", pictures.adversarial, pictures.adversarial_prediction),
    ]
    for number, (title, images, predictions) in enumerate(rows):
        for column in range(SHOWN):
            axes = panels[number * SHOWN + column]
            _frame(axes)
            if column < count:
                axes.imshow(images[column].transpose(1, 2, 0), interpolation="nearest")
                _caption(axes, pictures, column, predictions)
            else:
                axes.set_visible(False)
        panels[number * SHOWN].set_ylabel(title, fontsize=10)
    for column in range(count):
        panels[column].set_title(_short(pictures.class_names[pictures.label[column]]), fontsize=9.5, loc="center")
    return drawing


def correct(pictures: Pictures) -> tuple[int, int]:
    """How many of the pictures shown are classified correctly: clean, adversarial."""
    label = pictures.label[:SHOWN]
    clean, adversarial = pictures.clean_prediction[:SHOWN], pictures.adversarial_prediction[:SHOWN]
    return int((clean == label).sum()), int((adversarial == label).sum())


def _added(pictures: Pictures) -> NDArray[np.int16]:
    return pictures.adversarial.astype(np.int16) - pictures.clean.astype(np.int16)


def _frame(axes: Axes) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    for side in axes.spines.values():
        side.set_visible(False)


def _caption(
    axes: Axes, pictures: Pictures, column: int, predictions: Sequence[int] | NDArray[np.int64] | None
) -> None:
    if predictions is None:
        return
    right = predictions[column] == pictures.label[column]
    mark, colour = ("\N{CHECK MARK}", "#00795a") if right else ("\N{BALLOT X}", "#b84f00")
    axes.set_xlabel(
        f"{mark} {_short(pictures.class_names[predictions[column]])}", color=colour, fontsize=9.5, labelpad=2
    )


def _short(name: str) -> str:
    return name if len(name) <= LABEL_LENGTH else f"{name[: LABEL_LENGTH - 1]}\N{HORIZONTAL ELLIPSIS}"
