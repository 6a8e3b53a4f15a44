"""The Poincare ball: metric and group axioms, `geoopt` as an oracle, gradients, and its finite singular places."""

import math
from collections.abc import Callable

import geoopt.manifolds.stereographic.math as oracle
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from configs.errors import FieldError
from lightning_modules.geometry import PoincareBall, reach

curvatures = st.sampled_from([0.01, 0.1, 1.0, 1.9])
seeds = st.integers(0, 10**6)
some = settings(max_examples=20, deadline=None)


def vectors(seed: int, rows: int, length: float = 1.0, dtype: torch.dtype = torch.float64, width: int = 5) -> Tensor:
    """Rows of random directions, all of one length."""
    draws = torch.randn(rows, width, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return (length * draws / draws.norm(dim=1, keepdim=True)).to(dtype)


def spread(seed: int, rows: int, ball: PoincareBall, dtype: torch.dtype = torch.float64, width: int = 5) -> Tensor:
    """Points at tangent lengths from 0.1 to 3 / sqrt r."""
    lengths = torch.rand(rows, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(seed + 1)) * 2.9 + 0.1
    return ball.exp0(vectors(seed, rows, ball.radius, width=width) * lengths).to(dtype)


def curved(ball: PoincareBall) -> Tensor:
    """The curvature as `geoopt` takes it."""
    return torch.tensor(-ball.curvature, dtype=torch.float64)


@some
@given(seed=seeds, curvature=curvatures, exponent=st.floats(-3, 1))
def test_log_inverts_exp_in_float64(seed: int, curvature: float, exponent: float) -> None:
    tangents = vectors(seed, 4, 10**exponent)
    ball = PoincareBall(curvature)
    assert_close(ball.log0(ball.exp0(tangents)), tangents, rtol=1e-5, atol=0)


@some
@given(seed=seeds, curvature=curvatures, exponent=st.floats(-3, 1))
def test_log_inverts_exp_in_float32_up_to_its_reach(seed: int, curvature: float, exponent: float) -> None:
    """tanh saturates in float32: lengths beyond artanh(reach) / sqrt r come back as that length."""
    ball = PoincareBall(curvature)
    tangents = vectors(seed, 4, 10**exponent, torch.float32, width=64)
    back = ball.log0(ball.exp0(tangents))
    farthest = math.atanh(reach(torch.float32)) * ball.radius
    expected = tangents * min(1.0, farthest / 10**exponent)
    assert back.dtype == torch.float32
    assert ((back - expected).norm(dim=1) <= 1e-5 * expected.norm(dim=1)).all()


def test_reach_covers_norms_to_10() -> None:
    assert math.atanh(reach(torch.float32)) / math.sqrt(0.1) > 10
    assert math.atanh(reach(torch.float64)) / math.sqrt(1.9) > 10
    assert reach(torch.bfloat16) == reach(torch.float32)


@some
@given(seed=seeds, curvature=curvatures)
def test_metric_axioms(seed: int, curvature: float) -> None:
    ball = PoincareBall(curvature)
    x, y, z = spread(seed, 18, ball).split(6)
    assert_close(ball.distance(x, y), ball.distance(y, x), rtol=1e-12, atol=0)
    assert torch.equal(ball.distance(x, x), torch.zeros(6, dtype=torch.float64))
    assert (ball.distance(x, y) > 0).all()
    assert (ball.distance(x, z) <= ball.distance(x, y) + ball.distance(y, z) + 1e-12).all()


@some
@given(seed=seeds, curvature=curvatures, here=st.floats(-3, 3), there=st.floats(-3, 3))
def test_geodesics_through_the_origin_have_twice_the_tangents_length(
    seed: int, curvature: float, here: float, there: float
) -> None:
    ball = PoincareBall(curvature)
    along = vectors(seed, 3, ball.radius)
    expected = torch.full((3,), 2 * ball.radius * abs(here - there), dtype=torch.float64)
    assert_close(ball.distance(ball.exp0(here * along), ball.exp0(there * along)), expected, rtol=1e-9, atol=1e-12)


@some
@given(seed=seeds, curvature=curvatures)
def test_moebius_sums_are_isometries_with_an_inverse(seed: int, curvature: float) -> None:
    ball = PoincareBall(curvature)
    x, y, z = spread(seed, 12, ball).split(4)
    assert_close(ball.distance(ball.add(z, x), ball.add(z, y)), ball.distance(x, y), rtol=1e-6, atol=0)
    assert_close(ball.add(-x, ball.add(x, y)), y, rtol=1e-6, atol=1e-6 * ball.radius)
    assert_close(ball.add(x, torch.zeros_like(x)), x)
    assert_close(ball.add(-x, x), torch.zeros_like(x))
    artanh = 2 * ball.radius * (ball.norm(ball.add(-x, y)) / ball.radius).atanh()
    assert_close(ball.distance(x, y), artanh, rtol=1e-6, atol=0)


@some
@given(seed=seeds, curvature=curvatures)
def test_agrees_with_geoopt(seed: int, curvature: float) -> None:
    ball = PoincareBall(curvature)
    k = curved(ball)
    tangents = vectors(seed, 4, 2 * ball.radius)
    x, y = spread(seed, 8, ball).split(4)
    assert_close(ball.exp0(tangents), oracle.expmap0(tangents, k=k))
    assert_close(ball.log0(x), oracle.logmap0(x, k=k))
    assert_close(ball.distance(x, y), oracle.dist(x, y, k=k), rtol=1e-7, atol=0)
    assert_close(ball.add(x, y), oracle.mobius_add(x, y, k=k), rtol=1e-6, atol=1e-6 * ball.radius)
    middle = ball.midpoint(x, torch.zeros(4, dtype=torch.int64), 1)
    assert_close(middle[0], oracle.weighted_midpoint(x, k=k), rtol=1e-6, atol=1e-6 * ball.radius)


@some
@given(seed=seeds, curvature=curvatures, exponent=st.floats(-8, 0))
def test_matrix_of_distances(seed: int, curvature: float, exponent: float) -> None:
    """Against the distances of pairs in float64, for points as near as rounding in float32 lets them be, and equal."""
    ball = PoincareBall(curvature)
    x = spread(seed, 4, ball, torch.float32, width=32)
    y = torch.cat([spread(seed + 9, 3, ball, torch.float32, width=32), x, x * (1 - 10**exponent)])
    pairs = torch.stack([ball.distance(row.double(), y.double()) for row in x])
    gaps = (1 - curvature * x.double().square().sum(1, keepdim=True)) * (1 - curvature * y.double().square().sum(1))
    slack = 1e-6 * ball.radius / gaps.sqrt()  # 4e-8 of a norm, stretched by the metric
    found = ball.distances(x, y)
    assert found.dtype == torch.float32
    assert ((found - pairs).abs() <= 1e-5 * pairs + slack).all()
    assert ((found - pairs).abs() <= 1e-5 * pairs)[pairs > 100 * slack].all()
    assert not found[:, 3:7].diagonal().any()  # a point and itself


def test_matrix_of_distances_of_close_points() -> None:
    """Points 1e-4 of their norm apart: an expansion of the square in float32 has no right digit there."""
    ball = PoincareBall(1.0)
    x = 0.8 * vectors(0, 16, 1.0, torch.float32, width=256)
    y = x + 1e-4 * vectors(1, 16, 1.0, torch.float32, width=256)
    assert_close(ball.distances(x, y).diagonal().double(), ball.distance(x.double(), y.double()), rtol=1e-5, atol=0)
    naive = (x.square().sum(1)[:, None] + y.square().sum(1) - 2 * x @ y.T).diagonal().clamp_min(0).sqrt()
    assert ((naive - 1e-4).abs() > 1e-5).any()


SINGULAR: dict[str, Callable[[PoincareBall, Tensor], Tensor]] = {
    "exp0": lambda ball, x: ball.exp0(x),
    "log0": lambda ball, x: ball.log0(x),
    "project": lambda ball, x: ball.project(x),
    "norm": lambda ball, x: ball.norm(x),
    "to itself": lambda ball, x: ball.distance(x, x.detach().clone()),
    "to the origin": lambda ball, x: ball.distance(x, torch.zeros_like(x)),
    "to the opposite": lambda ball, x: ball.distance(x, -x),
    "among all": lambda ball, x: ball.distances(x, x),
    "among copies": lambda ball, x: ball.distances(x, x.detach().clone()),
    "added": lambda ball, x: ball.add(x, x.roll(1, 0)),
    "opposites added": lambda ball, x: ball.add(-x, x.detach().clone()),
    "midpoint": lambda ball, x: ball.midpoint(x, torch.tensor([0, 0, 0, 2, 2, 3]), 5),
    "middle of opposites": lambda ball, x: ball.midpoint(torch.cat([x, -x]), torch.arange(6).repeat(2), 6),
}


@pytest.mark.parametrize("operation", SINGULAR)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("place", ["origin", "near origin", "inside", "rim", "on the sphere", "outside", "far"])
def test_finite_values_and_gradients(operation: str, dtype: torch.dtype, place: str) -> None:
    """Two rows are equal everywhere; the rim is where `exp0` puts features of norm 1e4."""
    ball = PoincareBall(0.7)
    directions = vectors(3, 6, 1.0, dtype)
    directions[1] = directions[0]
    length = {"origin": 0.0, "near origin": 1e-20, "inside": 0.5, "on the sphere": ball.radius, "outside": 2.0}
    points = directions * length.get(place, 1e4)
    points = ball.exp0(points).to(dtype) if place == "rim" else points
    points.requires_grad_()
    values = SINGULAR[operation](ball, points)
    assert values.isfinite().all()
    (gradient,) = torch.autograd.grad(values.sum(), points)
    assert gradient.isfinite().all()


def test_gradients_at_singular_places() -> None:
    ball = PoincareBall(0.5)
    point = vectors(0, 3, 0.8, torch.float32).requires_grad_()
    (apart,) = torch.autograd.grad(ball.distance(point, point.detach().clone()).sum(), point)
    assert torch.equal(apart, torch.zeros(3, 5))
    (apart,) = torch.autograd.grad(ball.distances(point, point.detach().clone()).diagonal().sum(), point)
    assert torch.equal(apart, torch.zeros(3, 5))
    origin = torch.zeros(2, 5, requires_grad=True)
    for through in (ball.exp0, ball.log0, ball.project):
        (slope,) = torch.autograd.grad(through(origin).sum(), origin)
        assert_close(slope, torch.ones(2, 5))
    far = (1e4 * vectors(1, 2, 1.0)).requires_grad_()
    (slope,) = torch.autograd.grad(ball.norm(ball.exp0(far)).sum(), far)
    assert_close(slope, torch.zeros_like(far), rtol=0, atol=1e-9)  # nothing along the radius, beyond the reach


@pytest.mark.parametrize("curvature", [0.1, 1.9])
@pytest.mark.parametrize("length", [1e-3, 0.5, 2.5])
def test_gradients_against_finite_differences(curvature: float, length: float) -> None:
    ball = PoincareBall(curvature)
    tangents = vectors(5, 4, length * ball.radius, width=3).requires_grad_()
    x, y = (ball.exp0(vectors(seed, 4, length * ball.radius, width=3)).requires_grad_() for seed in (6, 7))
    groups = torch.tensor([2, 0, 2, 2])
    step = 1e-5 * length * (1 - math.tanh(length) ** 2)

    def check(function: Callable[..., Tensor], *inputs: Tensor) -> None:
        assert torch.autograd.gradcheck(function, inputs, eps=step * ball.radius, rtol=1e-4, atol=1e-6 / length)

    check(ball.exp0, tangents)
    check(ball.log0, x)
    check(ball.norm, x)
    check(ball.project, x)
    check(ball.distance, x, y)
    check(ball.distances, x, y)
    check(ball.add, x, y)
    check(lambda points: ball.midpoint(points, groups, 4), x)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_autocast_changes_nothing(dtype: torch.dtype) -> None:
    ball = PoincareBall(1.0)
    x, y = (0.6 * vectors(seed, 6, 1.0, width=64).to(dtype) for seed in (0, 1))
    groups = torch.tensor([0, 0, 1, 1, 1, 1])

    def everything() -> list[Tensor]:
        both = ball.add(x, y), ball.distance(x, y), ball.distances(x, y)
        return [*both, ball.exp0(x), ball.log0(x), ball.project(x), ball.norm(x), ball.midpoint(x, groups, 2)]

    plain = everything()
    with torch.autocast("cpu", torch.bfloat16):
        surrounded = everything()
    for expected, found in zip(plain, surrounded, strict=True):
        assert found.dtype == torch.float32
        assert torch.equal(expected, found)


@some
@given(seed=seeds, curvature=curvatures)
def test_midpoint(seed: int, curvature: float) -> None:
    ball = PoincareBall(curvature)
    points = spread(seed, 5, ball)
    one = torch.zeros(5, dtype=torch.int64)
    close = {"rtol": 1e-6, "atol": 1e-6 * ball.radius}
    middle = ball.midpoint(points, one, 1)
    assert_close(ball.midpoint(points.flip(0), one, 1), middle, **close)  # in any order
    copies = points[:1].expand(5, -1)
    assert_close(ball.midpoint(copies, one, 1), points[:1], **close)  # of equals, themselves
    assert ball.norm(middle) <= ball.norm(points).max()
    moved = ball.add(points[:1].expand(5, -1), points)
    assert_close(ball.midpoint(moved, one, 1), ball.add(points[:1], middle), **close)  # wherever the origin is
    pair = ball.midpoint(points[:2], one[:2], 1)[0]
    half = ball.distance(points[0], points[1]) / 2
    assert_close(ball.distance(points[0], pair), half, rtol=1e-6, atol=0)
    assert_close(ball.distance(points[1], pair), half, rtol=1e-6, atol=0)  # so it lies on the geodesic, too


def test_midpoints_of_groups() -> None:
    ball = PoincareBall(0.5)
    points = spread(0, 6, ball, torch.float32)
    groups = torch.tensor([3, 0, 3, 0, 0, 1])
    middles = ball.midpoint(points, groups, 5)
    assert (middles.shape, middles.dtype) == ((5, 5), torch.float32)
    for group in (0, 1, 3):
        members = points[groups == group]
        alone = ball.midpoint(members, torch.zeros(len(members), dtype=torch.int64), 1)
        assert_close(middles[group], alone[0])
    assert_close(middles[1], points[5])
    assert torch.equal(middles[[2, 4]], torch.zeros(2, 5))  # empty
    assert not ball.midpoint(points[:0], groups[:0], 2).any()


def test_midpoint_of_equals_at_the_rim() -> None:
    ball = PoincareBall(1.0)
    rim = ball.exp0(vectors(0, 1, 1e4, torch.float32, width=256)).expand(200, -1)
    middle = ball.midpoint(rim, torch.zeros(200, dtype=torch.int64), 1)
    assert ball.distance(middle, rim[:1]).item() < 1e-3  # of 7.6 from the origin


def test_projection() -> None:
    ball = PoincareBall(0.25)
    inside, outside = vectors(0, 3, 1.9, torch.float32), vectors(1, 3, 7.0, torch.float32)
    assert torch.equal(ball.project(inside), inside)
    assert_close(ball.norm(ball.project(outside)), torch.full((3,), 2.0 * reach(torch.float32)))
    assert_close(ball.project(outside) / 2 / reach(torch.float32), outside / 7)
    assert_close(ball.project(vectors(0, 3, 50.0, torch.float32)), ball.exp0(vectors(0, 3, 50.0, torch.float32)))
    assert (ball.norm(ball.exp0(torch.full((1, 512), 1e4))) < ball.radius).all()


@pytest.mark.parametrize("curvature", [0.0, -1.0, math.nan, math.inf])
def test_refuses_a_curvature_that_is_no_ball(curvature: float) -> None:
    with pytest.raises(FieldError, match="curvature must be > 0"):
        PoincareBall(curvature)
