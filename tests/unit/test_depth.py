"""Depths and margins: read from what training logged, on the report only where there are any."""

import csv
import json
import re
from pathlib import Path

import found_runs
import numpy as np
import pytest

from experiments.analysis.depth import depth_curves, depths, margins
from experiments.report import write_report

STEPS = np.arange(1.0, 6)
LEVELS = {"text/leaf": 0.8, "text/wordnet.1": 0.7, "text/my.tree.2": 0.4, "image/leaf": 0.9}
CURVES = {f"depth/{name}": (STEPS, np.linspace(0.5, norm, 5)) for name, norm in LEVELS.items()} | {
    "train/loss": (STEPS, STEPS)
}


def test_columns_are_levels_of_trees() -> None:
    found = [(depth.kind, depth.tree, depth.level, depth.norms[-1]) for depth in depths(CURVES)]
    assert found == [("text", None, 0, 0.8), ("text", "wordnet", 1, 0.7), ("text", "my.tree", 2, 0.4),
                     ("image", None, 0, 0.9)]  # fmt: skip


def test_each_tree_is_a_panel_with_the_leaves_and_images_in_it() -> None:
    drawing = depth_curves(depths(CURVES))
    assert drawing is not None
    shown = {axes.get_title("left"): {str(line.get_label()) for line in axes.lines} for axes in drawing.axes}
    assert shown == {
        "wordnet": {"leaf", "wordnet 1", "leaf, images"},
        "my.tree": {"leaf", "my.tree 2", "leaf, images"},
    }


@pytest.mark.parametrize("curvature", [0.25, 1.0, 2.0])
def test_marks_are_at_the_distance_of_opposite_points_times_the_scale(curvature: float) -> None:
    """By the ball's metric: the distance to the centre is the integral of 2 / (1 - r t^2) over the way out."""
    scale = 3.0
    drawing = margins(depths(CURVES), curvature, scale)
    assert drawing is not None
    _, _, *marks = drawing.axes[0].lines
    for mark, share in zip(marks, LEVELS.values(), strict=True):
        (x,), (y,) = np.asarray(mark.get_xdata()), np.asarray(mark.get_ydata())
        way, width = np.linspace(0, share / np.sqrt(curvature), 20_001, retstep=True)
        middles = way[:-1] + width / 2
        out = (2 / (1 - curvature * middles**2)).sum() * width
        assert x == pytest.approx(share)
        assert y == pytest.approx(2 * scale * out, rel=1e-6)


def test_nothing_hyperbolic_draws_nothing() -> None:
    assert depths({"train/loss": (STEPS, STEPS)}) == []
    assert depth_curves([]) is None
    assert margins([], 1.0, 1.0) is None


@pytest.mark.parametrize(("columns", "head", "pictures"), [(False, True, None), (True, False, 1), (True, True, 2)])
def test_the_report_has_what_training_left(tmp_path: Path, columns: bool, head: bool, pictures: int | None) -> None:
    found_runs.write(tmp_path, [found_runs.row(0.9)], pictures=1, size=8)
    if columns:
        with (tmp_path / "metrics.csv").open("w", newline="") as file:
            csv.writer(file).writerows(
                [["step", *CURVES], *([step, *(0.1 * step for _ in CURVES)] for step in range(1, 6))]
            )
    if head:
        (tmp_path / "model").mkdir()
        (tmp_path / "model" / "hyperbolic_head.json").write_text(json.dumps({"curvature": 1, "log_logit_scale": 2.0}))
    sections = re.findall(r"<section><h2>(.*?)</h2>(.*?)</section>", write_report(tmp_path).read_text(), re.DOTALL)
    assert {name: part.count("<figure>") for name, part in sections}.get("Depth") == pictures
