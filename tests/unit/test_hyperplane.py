"""Moves onto a hyperplane against general solvers: a linear program for L-inf and L1, the dual's root for L2."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize
from torch import Tensor

from lightning_modules.attacks.hyperplane import length, shortest_move

NORMS = ["linf", "l2", "l1"]
COORDINATES = 7


@st.composite
def problems(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, float]:
    """A point of the box, with coordinates on its faces; a normal with zeros, ties and many scales; and which share of
    the height that the box has below or above the point is to be closed, more than 1 being out of reach."""
    point = draw(st.lists(st.sampled_from([0.0, 1.0, 0.5, 0.25, 0.01, 0.9375]), min_size=7, max_size=7))
    sign = st.sampled_from([-1.0, 1.0])
    size = st.sampled_from([0.0, 1.0, 1.0, 0.5, 3.0, 1e-3, 40.0])
    normal = [draw(sign) * draw(size) for _ in range(COORDINATES)]
    share = draw(sign) * draw(st.sampled_from([1e-4, 0.1, 0.37, 0.5, 0.93, 0.999, 1.2]))
    return np.array(point), np.array(normal), share


def reach(point: np.ndarray, normal: np.ndarray, sign: float) -> np.ndarray:
    """The move to the corner where the height changes most against its sign."""
    up = (normal * sign < 0).astype(float)
    return np.where(normal == 0, 0.0, up - point)


def least_norm(point: np.ndarray, normal: np.ndarray, height: float, norm: str) -> float:
    count = len(point)
    box = list(zip(-point, 1.0 - point, strict=True))
    if norm == "l2":
        edges = np.array(box).T

        def moved(dual: float) -> np.ndarray:
            return np.clip(-dual * normal, *edges)

        sign = math.copysign(1.0, height)
        far = sign * 2.0 / np.abs(normal[normal != 0]).min()
        root = optimize.brentq(lambda dual: height + normal @ moved(dual), 0.0, far, xtol=1e-14, rtol=1e-14)
        return float(np.linalg.norm(moved(root)))
    # bounds[i] >= |d_i|; under L-inf all bounds are one variable
    bounds = np.eye(count) if norm == "l1" else np.ones((count, 1))
    above = np.block([[np.eye(count), -bounds], [-np.eye(count), -bounds]])
    cost = np.concatenate([np.zeros(count), np.ones(bounds.shape[1])])
    solved = optimize.linprog(
        cost,
        A_ub=above,
        b_ub=np.zeros(2 * count),
        A_eq=np.concatenate([normal, np.zeros(bounds.shape[1])])[None],
        b_eq=[-height],
        bounds=box + [(0.0, None)] * bounds.shape[1],
    )
    assert solved.success
    return float(solved.fun)


def one(point: np.ndarray, normal: np.ndarray, height: float, norm: str) -> np.ndarray:
    row = [torch.tensor(value, dtype=torch.float32)[None] for value in (point, normal, height)]
    return shortest_move(*row, norm)[0].double().numpy()


@pytest.mark.parametrize("norm", NORMS)
@settings(max_examples=60, deadline=None)
@given(problem=problems())
def test_the_move_reaches_the_hyperplane_in_the_box_and_is_the_shortest(
    norm: str, problem: tuple[np.ndarray, np.ndarray, float]
) -> None:
    point, normal, share = problem
    corner = reach(point, normal, share)
    height = -(normal @ corner) * abs(share)
    move = one(point, normal, height, norm)
    assert ((point + move >= -1e-6) & (point + move <= 1 + 1e-6)).all()
    assert (move[normal == 0] == 0).all()
    if abs(share) > 1:
        np.testing.assert_allclose(move, corner if height else 0.0, atol=1e-6)
        return
    assert height + normal @ move == pytest.approx(0.0, abs=2e-6 * max(1.0, np.abs(normal).max()))
    if height:
        found = np.linalg.norm(move, {"linf": math.inf, "l2": 2, "l1": 1}[norm])
        assert found == pytest.approx(least_norm(point, normal, height, norm), rel=1e-4, abs=1e-6)


def scene(count: int = 6, coordinates: int = 500) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(count, coordinates, generator=generator)
    normal = torch.randn(count, coordinates, generator=generator)
    return points, normal, 8.0 * torch.randn(count, generator=generator)


@pytest.mark.parametrize("norm", NORMS)
def test_scale_of_the_function_does_not_matter(norm: str) -> None:
    """Not even where the squares of the normal are below the smallest float32."""
    points, normal, height = scene()
    usual = shortest_move(points, normal, height, norm)
    for scale in (2.0**-80, 2.0**60):
        torch.testing.assert_close(shortest_move(points, normal * scale, height * scale, norm), usual)
    torch.testing.assert_close(shortest_move(points, -normal, -height, norm), usual)


@pytest.mark.parametrize("norm", NORMS)
def test_every_row_is_a_problem_of_its_own(norm: str) -> None:
    points, normal, height = scene()
    together = shortest_move(points, normal, height, norm)
    for row in range(len(points)):
        alone = shortest_move(points[row, None], normal[row, None], height[row, None], norm)
        torch.testing.assert_close(alone[0], together[row], rtol=0, atol=1e-6)


@pytest.mark.parametrize("norm", NORMS)
def test_nowhere_to_go(norm: str) -> None:
    """On the hyperplane already, or without one."""
    points, normal, height = scene()
    assert not shortest_move(points, normal, torch.zeros_like(height), norm).any()
    assert not shortest_move(points, torch.zeros_like(normal), height, norm).any()
    assert not shortest_move(points, torch.zeros_like(normal), torch.zeros_like(height), norm).any()


def test_lengths() -> None:
    moves = torch.tensor([[[3.0, -4.0]], [[0.0, 0.0]]])
    assert length(moves, "linf").tolist() == [4.0, 0.0]
    assert length(moves, "l2").tolist() == [5.0, 0.0]
    assert length(moves, "l1").tolist() == [7.0, 0.0]
