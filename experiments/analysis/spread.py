"""How open-world scores spread over in-distribution and OOD pictures, as they are and as an attack leaves them."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.analysis import figure, names
from experiments.analysis.loading import Evidence, Floats
from experiments.analysis.plots import IN_DISTRIBUTION

BINS = 28
STYLES = ("-", "--", "-.", ":")


@figure.styled
def clean_and_attacked(evidence: Evidence, scores: Sequence[str]) -> Figure | None:
    """A row a score: histograms of clean pictures on the left; on the right of the worst pictures that an attack found,
    known ones made to be rejected and unknown ones to be accepted. None where none of the scores was attacked.

    Both panels of a row have one axis, so that what the attack moves is seen.
    """
    shown = [score for score in scores if score in evidence.attacked and score in evidence.scores]
    if not shown:
        return None
    drawing, panels = figure.new(2.9 * len(shown) + 0.7, rows=len(shown), columns=2)
    for score, left, right in zip(shown, panels[::2], panels[1::2], strict=True):
        clean = evidence.scores[score]
        worst = {split: pair[:, 1] for split, pair in evidence.attacked[score].items()}
        edges = np.histogram_bin_edges(np.concatenate([*clean.values(), *worst.values()]), BINS)
        highest = max(_histograms(axes, splits, edges) for axes, splits in ((left, clean), (right, worst)))
        for axes, kind, splits in ((left, "clean", clean), (right, "under attack", worst)):
            axes.set(xlim=(edges[0], edges[-1]), ylim=(0, 1.05 * highest))
            axes.set_title(f"{names.score(score)}, {kind} (n = {_counts(splits)})", fontsize=11)
        left.set_ylabel("share of pictures")
    for axes in panels[-2:]:
        axes.set_xlabel("score (higher: more in-distribution)")
    drawing.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=10)
    return drawing


def _histograms(axes: Axes, splits: Mapping[str, Floats], edges: Floats) -> float:
    """Draws them, and returns the largest share of a bin."""
    heights = {split: np.histogram(values, edges)[0] / len(values) for split, values in splits.items()}
    known = [split for split in splits if split in IN_DISTRIBUTION]
    for split in known:
        axes.stairs(heights[split], edges, fill=True, color=figure.BLUE, alpha=0.35, label="in-distribution")
    unknown = [split for split in splits if split not in known]
    for place, split in enumerate(unknown):
        colour, style = figure.SERIES[place % len(figure.SERIES)], STYLES[place % len(STYLES)]
        axes.stairs(heights[split], edges, color=colour, linestyle=style, linewidth=1.8, label=names.split(split))
    return max(float(shares.max()) for shares in heights.values())


def _counts(splits: Mapping[str, Floats]) -> str:
    """Of each split, or once where all are equal."""
    return " + ".join(f"{n:,}" for n in dict.fromkeys(map(len, splits.values())))
