"""Class trees on the Poincare disc: right in its geometry, and legible."""

from typing import Any

import numpy as np
import pytest
from grown_trees import grow
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from matplotlib.text import Text

from experiments.analysis import figure
from experiments.analysis.disc import SIDE, _colour, discs
from experiments.analysis.layout import RIM, Points, geodesics, layout, level_radius
from lightning_modules.hierarchy import Tree

SEEDS = st.integers(0, 10_000)
WITHIN = st.builds(lambda radius, angle: radius * np.exp(1j * angle), st.floats(0, 0.97), st.floats(-4, 4))


def distance(start: Points | complex, end: Points | complex) -> Any:
    """By the formula with acosh, which knows nothing of Moebius transformations."""
    room = (1 - np.abs(start) ** 2) * (1 - np.abs(end) ** 2)
    return np.arccosh(1 + 2 * np.abs(start - end) ** 2 / room)


@given(WITHIN, WITHIN)
@settings(deadline=None)
def test_a_geodesic_is_as_long_as_its_ends_are_apart_and_evenly_sampled(start: complex, end: complex) -> None:
    (path,) = geodesics(np.array([start]), np.array([end]), samples=9)
    steps = distance(path[:-1], path[1:])
    assert path[[0, -1]] == pytest.approx([start, end], abs=1e-9)
    whole = distance(start, end)
    assert steps == pytest.approx(np.full(8, whole / 8), rel=1e-4, abs=1e-6)


@given(WITHIN, WITHIN)
@settings(deadline=None)
def test_a_geodesic_lies_on_a_circle_that_meets_the_rim_at_right_angles(start: complex, end: complex) -> None:
    """Such a circle, |z - c|^2 = |c|^2 - 1, is |z|^2 + 1 = 2 Re(z conj(c)), and a diameter 0 = Re(z conj(c)): the
    vectors (x, y, |z|^2 + 1) of all its points lie in one plane."""
    (path,) = geodesics(np.array([start]), np.array([end]), samples=9)
    vectors = np.column_stack([path.real, path.imag, np.abs(path) ** 2 + 1])
    assert np.linalg.svd(vectors, compute_uv=False)[-1] < 1e-9


@given(SEEDS)
@settings(max_examples=50, deadline=None)
def test_each_class_has_a_sector_as_wide_as_its_leaves(seed: int) -> None:
    tree = grow(seed)
    found = layout(tree)
    assert sorted(found.order) == list(range(len(tree.levels[0])))
    around = found.angles[found.order]
    assert (np.diff(around) < 0).all()
    assert around[0] - around[-1] < 2 * np.pi - found.pitch / 2
    for level in range(tree.depth + 1):
        classes = tree.ancestors(level).numpy()[found.order]
        assert (np.diff(classes) != 0).sum() == len(tree.levels[level]) - 1  # no class is split
        assert found.shares[level] * len(classes) == pytest.approx(np.bincount(classes))


@given(SEEDS)
@settings(max_examples=50, deadline=None)
def test_levels_lie_on_circles_at_equal_distances_from_the_centre_to_the_leaves(seed: int) -> None:
    tree = grow(seed)
    found = layout(tree)
    for level, points in enumerate(found.points):
        assert np.abs(points) == pytest.approx(np.full(len(points), level_radius(tree, level)))
    assert np.abs(found.points[0]) == pytest.approx(np.full(len(found.points[0]), RIM))
    inward = [distance(0j, points[0]) for points in found.points]
    if len(found.points[-1]) > 1 or tree.depth == 0:
        inward.append(0)  # what the top classes hang from
    assert inward == pytest.approx(np.linspace(inward[0], 0, len(inward)), abs=1e-6)


@given(SEEDS)
@settings(max_examples=50, deadline=None)
def test_edges_stay_between_the_angles_of_their_ends_so_that_none_cross(seed: int) -> None:
    tree = grow(seed)
    found = layout(tree)
    for level in range(tree.depth):
        parents = found.points[level + 1][list(tree.parents[level])]
        away = np.abs(parents) > 1e-9
        paths = geodesics(parents[away], found.points[level][away])
        turned = np.angle(paths / paths[:, :1])
        assert (np.diff(turned * np.sign(turned[:, -1:]), axis=1) >= -1e-9).all()


def test_learned_depths_move_classes_along_their_rays() -> None:
    tree = grow(7)
    radii = [np.linspace(0.2, 0.9, len(names)) for names in tree.levels]
    before, after = layout(tree), layout(tree, radii)
    for level, points in enumerate(after.points):
        assert np.abs(points) == pytest.approx(radii[level])
        assert np.imag(points * before.points[level].conj()) == pytest.approx(0, abs=1e-12)
        assert (np.real(points * before.points[level].conj()) >= 0).all()


def names(drawing: Figure) -> dict[str, Text]:
    return {text.get_text(): text for axes in drawing.axes for text in axes.texts}


def test_all_names_are_within_the_drawing_and_those_of_superclasses_apart() -> None:
    long = "a name that is longer than anything that there is room for beside the rim"
    tree = grow(3, leaves=60)
    tree = Tree(tree.name, ((long, *tree.levels[0][1:]), *tree.levels[1:]), tree.parents)
    drawing = discs([tree])
    side = SIDE * drawing.dpi
    boxes = {name: text.get_window_extent() for name, text in names(drawing).items()}
    assert all(box.x0 >= 0 and box.y0 >= 0 and box.x1 <= side and box.y1 <= side for box in boxes.values())
    inner = [boxes[name] for level in tree.levels[1:] for name in level if name in boxes]
    assert len(inner) > 1
    assert not any(one.overlaps(other) for place, one in enumerate(inner) for other in inner[:place])
    assert set(tree.levels[0][1:]) <= set(boxes)


def test_of_too_many_leaves_evenly_spread_ones_are_named_and_the_drawing_says_so() -> None:
    tree = Tree("flat", (tuple(f"leaf {place}" for place in range(900)),), ())
    found = names(discs([tree]))
    shown = sorted(int(name.split()[1]) for name in found if name.startswith("leaf "))
    (step,) = set(np.diff(shown))
    assert step > 1
    assert f"one leaf in {step} is named" in found


@pytest.mark.parametrize("count", range(2, 30))
def test_neighbouring_sectors_differ_in_colour(count: int) -> None:
    colours = [_colour(sector, count) for sector in range(count)]
    assert all(one != other for one, other in zip(colours, [*colours[1:], colours[0]], strict=True))


def test_each_tree_has_its_disc_and_the_same_trees_the_same_bytes() -> None:
    trees = [grow(seed) for seed in (1, 2, 3)]
    drawing = discs(trees)
    assert len(drawing.axes) == 3
    assert figure.svg(drawing) == figure.svg(discs(trees))
