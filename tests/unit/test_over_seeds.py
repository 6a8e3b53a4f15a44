"""Curves, matrices and costs over the seeds of methods."""

from pathlib import Path

import made_runs
import numpy as np
import pytest

from experiments.analysis import cost, load_runs
from experiments.analysis.comparison import Spread
from experiments.analysis.figure import png
from experiments.analysis.matrix import Matrix, heat_maps, over_seeds
from experiments.analysis.over_seeds import accuracy_by_radius, accuracy_by_steps


def test_curves_are_means_with_their_intervals(tmp_path: Path) -> None:
    robust = {"tecoa_openmoji": (0.30, 0.34, 0.32), "fare_openmoji": (0.31,)}
    for experiment, values in robust.items():
        for seed, value in enumerate(values):
            made_runs.run(tmp_path, 0.8 + seed / 100, value, experiment, seed=seed)
    drawing = accuracy_by_radius(load_runs(tmp_path))
    assert drawing is not None
    (axes,) = drawing.axes
    drawn = {line.get_label(): line for line in axes.get_lines()}
    assert set(drawn) == set(robust)
    bands = dict(zip(drawn, axes.collections, strict=True))
    for experiment, values in robust.items():
        assert drawn[experiment].get_xdata().tolist() == [0, 1, 2, 4]
        clean = [0.8 + seed / 100 for seed in range(len(values))]
        points = [clean, values, [value / 2 for value in values], values]
        curve = [Spread.of(dict(enumerate(point))) for point in points]
        assert drawn[experiment].get_ydata() == pytest.approx([100 * spread.mean for spread in curve])
        corners = bands[experiment].get_paths()[0].vertices
        for at, spread in zip((0, 1, 2, 4), curve, strict=True):
            heights = corners[corners[:, 0] == at][:, 1]
            low, high = spread.interval or (spread.mean, spread.mean)
            assert (heights.min(), heights.max()) == (pytest.approx(100 * low), pytest.approx(100 * high))
    assert png(drawing)


def test_nothing_varied_is_nothing_drawn(tmp_path: Path) -> None:
    folder = made_runs.run(tmp_path, 0.8, 0.3)
    assert accuracy_by_steps(load_runs(tmp_path)) is None
    kept = [line for line in (folder / "results.jsonl").read_text().splitlines() if '"sweep"' not in line]
    (folder / "results.jsonl").write_text("\n".join(kept) + "\n")
    assert accuracy_by_radius(load_runs(tmp_path)) is None


def test_over_steps_there_is_a_tick_a_number_of_steps(tmp_path: Path) -> None:
    for seed in (0, 1):
        extra = [made_runs.under(steps, 0.5 / steps, seed) for steps in (1, 10, 100)]
        made_runs.write(made_runs.configured(tmp_path, seed=seed), extra)
    drawing = accuracy_by_steps(load_runs(tmp_path))
    assert drawing is not None
    (line,) = drawing.axes[0].get_lines()
    assert line.get_xdata().tolist() == [1, 10, 100]
    assert line.get_ydata() == pytest.approx([50, 5, 0.5])
    assert [tick.get_text() for tick in drawing.axes[0].get_xticklabels()] == ["1", "10", "100"]


def test_a_mean_matrix_is_of_one_method_and_question() -> None:
    random = np.random.default_rng(0)
    shares = [random.random((3, 2)) for _ in range(3)]
    made = [Matrix("PGD-10", "after", ("clean", "leaf", "top"), ("leaf", "top"), each, 96) for each in shares]
    other = Matrix("PGD-10", "after", ("clean", "leaf", "top"), ("leaf", "top"), shares[0], 48)
    found = over_seeds({"a": made[:2], "b": [made[2], other]})
    assert [(one.stage, one.samples) for one in found] == [("a", 96), ("b", 96), ("b", 48)]
    assert found[0].accuracy == pytest.approx((shares[0] + shares[1]) / 2)
    assert heat_maps(found) is not None


def test_costs_are_steps_times_seconds_and_measurements_once(tmp_path: Path) -> None:
    rows = [*made_runs.rows(0.9, 0.1, 0, "before", seconds=100), *made_runs.rows(0.8, 0.3, 0, seconds=260)]
    made_runs.write(made_runs.configured(tmp_path, "tecoa_openmoji", "trainer.devices=2", "trainer.nodes=4"), rows)
    (line,) = cost(load_runs(tmp_path)).itertuples()
    assert line.steps == 20
    assert line.seconds_per_step == pytest.approx((10 * 0.5 + 10 * 1.5) / 20)
    assert line.train_hours == pytest.approx(20 / 3600)
    assert line.measure_hours == pytest.approx(360 / 3600)
    assert line.device_hours == pytest.approx(8 * 380 / 3600)


def test_what_a_cost_can_not_be_known_of_is_not_a_number(tmp_path: Path) -> None:
    folder = made_runs.run(tmp_path, 0.8, 0.3)
    (folder / "metrics.csv").unlink()
    (folder / "config.yaml").unlink()
    (line,) = cost(load_runs(tmp_path)).itertuples()
    assert np.isnan(line.device_hours)
    assert np.isnan(line.seconds_per_step)
    assert (line.steps, line.train_hours) == (0, 0.0)
