"""What all plots have in common: size, colours that colour-blind readers can tell apart, and becoming bytes."""

import functools
import io
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

WIDTH = 10.0  # inches; a page shows it at 1000 pixels
LETTERS = 130  # of a legend that fit into the width
INK, MUTED, GRID = "#22272e", "#5b6572", "#e3e7ec"
# Okabe and Ito's palette (2008).
BLUE, ORANGE, VERMILLION, GREEN, PURPLE, SKY = "#0072b2", "#e69f00", "#d55e00", "#009e73", "#cc79a7", "#56b4e9"
STAGES = ("#8b949e", BLUE, VERMILLION, GREEN, PURPLE)  # in the order of the table's columns
SERIES = (ORANGE, VERMILLION, PURPLE, GREEN, SKY)
STYLE: Any = {
    "font.size": 11,
    "axes.titlesize": 12,
    "axes.titlelocation": "left",
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "svg.hashsalt": "immunoclip",  # same data, same bytes
}


Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def styled(draw: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Draws in this module's style, and leaves matplotlib's settings as they were."""

    @functools.wraps(draw)
    def within(*arguments: Parameters.args, **named: Parameters.kwargs) -> Result:
        with rc_context(STYLE):
            return draw(*arguments, **named)

    return within


def new(height: float, rows: int = 1, columns: int = 1, width: float = WIDTH) -> tuple[Figure, list[Axes]]:
    """An empty figure (inches) that pyplot does not know of, and its axes row by row."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False)
    return figure, list(axes.flat)


def percent_axis(axes: Axes, label: str) -> None:
    """A vertical axis in percent with a light grid."""
    axes.set_ylim(0, 105)
    axes.set_yticks(range(0, 101, 20))
    axes.set_ylabel(label)
    axes.grid(axis="y", color=GRID)
    axes.set_axisbelow(True)


def legend_below(figure: Figure, handles: Mapping[str, Any]) -> None:
    """A legend of label -> handle, in as many columns, up to three, as the longest label leaves room for."""
    longest = max(map(len, handles), default=1)
    columns = max(1, min(3, LETTERS // (longest + 6)))
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=columns, fontsize=10)


@styled
def svg(figure: Figure) -> bytes:
    """Vector bytes; the same figure gives the same bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


@styled
def png(figure: Figure, dots_per_inch: int = 110) -> bytes:
    """Pixels, for what is made of pictures."""
    return _pixels(figure, "png", dots_per_inch)


@styled
def jpeg(figure: Figure, dots_per_inch: int = 80, quality: int = 50) -> bytes:
    """The same in a tenth of the bytes, where the pictures are noisy."""
    return _pixels(figure, "jpeg", dots_per_inch, quality=quality)


def _pixels(figure: Figure, form: str, dots_per_inch: int, **encoding: int) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format=form, dpi=dots_per_inch, pil_kwargs=encoding)
    return buffer.getvalue()
