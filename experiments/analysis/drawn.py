"""Plots on a page."""

from matplotlib.figure import Figure

from experiments.analysis import figure, page


def drawn(drawing: Figure | None, alternative: str, caption: str) -> str:
    """A plot with its caption; nothing for none. `alternative` is what those who can't see it read."""
    return page.picture(figure.svg(drawing), alternative, caption) if drawing is not None else ""
