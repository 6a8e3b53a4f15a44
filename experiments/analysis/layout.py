"""Where the classes of a tree lie on the Poincare disc, and the shortest paths between them."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import pi

import numpy as np
from numpy.typing import NDArray

from lightning_modules.hierarchy import Tree

Points = NDArray[np.complex128]  # x + iy, |point| < 1
Reals = NDArray[np.float64]
Indices = NDArray[np.int64]

RIM = 0.93  # where the leaves lie
GAP = 1.0  # between two sectors, in leaves


@dataclass(frozen=True)
class Layout:
    """Levels in the tree's order, leaves first.

    points   per level, (classes,): where each class lies.
    shares   per level, (classes,): how many of all leaves are below each class.
    sectors  per level, (classes,): which sector each class is in, -1 above them. Sectors are the classes of the highest
             level that has several.
    angles   (leaves,): of each leaf, in radians.
    order    the leaves as they come around the circle.
    pitch    the angle between two leaves.
    """

    points: tuple[Points, ...]
    shares: tuple[Reals, ...]
    sectors: tuple[Indices, ...]
    angles: Reals
    order: Indices
    pitch: float


def layout(tree: Tree, radii: Sequence[Reals] | None = None) -> Layout:
    """Clockwise from twelve, an angle in proportion to its leaves for each class, which lies in the middle of it.

    Args:
        radii: per level, the distance of each class from the centre, in radii of the ball, (classes,), each below 1;
            for depths that were learned. Without it levels are on circles, at equal hyperbolic distances.
    """
    ancestors = [tree.ancestors(level).numpy() for level in range(tree.depth + 1)]
    divided = max((level for level, names in enumerate(tree.levels) if len(names) > 1), default=0)
    order = np.lexsort(ancestors)  # the last key, the top class, counts most
    sector = ancestors[divided][order]
    slots = np.arange(len(order)) + GAP * np.cumsum(np.diff(sector, prepend=sector[0]) != 0)
    pitch = 2 * pi / (len(order) + GAP * len(tree.levels[divided]))
    angles = np.empty(len(order))
    angles[order] = pi / 2 - pitch * slots
    places = radii or [np.array(level_radius(tree, level)) for level in range(tree.depth + 1)]
    return Layout(
        points=tuple(
            radius * np.exp(1j * _middle(angles, each)) for radius, each in zip(places, ancestors, strict=True)
        ),
        shares=tuple(np.bincount(each) / len(order) for each in ancestors),
        sectors=tuple(
            _above(each, ancestors[divided]) if level <= divided else np.full(len(tree.levels[level]), -1)
            for level, each in enumerate(ancestors)
        ),
        angles=angles,
        order=order,
        pitch=pitch,
    )


def level_radius(tree: Tree, level: int) -> float:
    """Of the circle that a level lies on. At the centre is the single top class, or what several ones hang from."""
    hung = len(tree.levels[-1]) > 1 or tree.depth == 0
    return float(np.tanh(np.arctanh(RIM) * (1 - level / (tree.depth + hung))))


def geodesics(start: Points, end: Points, samples: int = 24) -> Points:
    """Points along the shortest hyperbolic paths from `start` (N,) to `end` (N,), evenly spaced in hyperbolic length.

    A path is an arc of the circle through both points that meets the rim at right angles: the image of a straight line
    from the centre under the Moebius transformation that takes the centre to `start`.

    Returns:
        complex, (N, samples); both ends belong to it.
    """
    toward = (end - start) / (1 - start.conj() * end)
    lengths = np.linspace(0, 1, samples) * np.arctanh(np.abs(toward))[:, None]
    steps = np.tanh(lengths) * np.exp(1j * np.angle(toward))[:, None]
    path: Points = (steps + start[:, None]) / (1 + start.conj()[:, None] * steps)
    return path


def _middle(angles: Reals, classes: Indices) -> Reals:
    """(classes,): half-way between the first and the last leaf of each class; `classes` (leaves,) has each leaf's."""
    low, high = np.full(classes.max() + 1, np.inf), np.full(classes.max() + 1, -np.inf)
    np.minimum.at(low, classes, angles)
    np.maximum.at(high, classes, angles)
    return (low + high) / 2


def _above(classes: Indices, ancestors: Indices) -> Indices:
    """(classes,): the ancestor that all leaves of a class have in common; both (leaves,)."""
    above = np.empty(classes.max() + 1, dtype=np.int64)
    above[classes] = ancestors
    return above
