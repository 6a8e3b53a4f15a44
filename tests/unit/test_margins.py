"""Margins of theorem 1, against the largest difference of logits that a search finds."""

import math

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from lightning_modules.geometry import PoincareBall, euclidean_margin, hyperbolic_margin


def circle(norm: float, steps: int) -> Tensor:
    angles = torch.arange(steps, dtype=torch.float64) * (2 * math.pi / steps)
    return norm * torch.stack([angles.cos(), angles.sin()], dim=1)


def widest(logits: Tensor) -> Tensor:
    """The largest difference of two of an image's logits, of (B, N)."""
    return (logits.amax(1) - logits.amin(1)).max()


@pytest.mark.parametrize("curvature", [0.1, 1.0])
@pytest.mark.parametrize("fraction", [0.05, 0.5, 0.99])
def test_are_the_supremum_of_logit_differences(curvature: float, fraction: float) -> None:
    """Image and texts run over a circle, opposites among them; random ones in more dimensions don't get further."""
    ball, scale = PoincareBall(curvature), 3.0
    norm = torch.tensor(fraction * ball.radius, dtype=torch.float64)
    flat, curved = euclidean_margin(norm, scale), hyperbolic_margin(norm, scale, ball)
    ring = circle(norm.item(), 360)
    assert_close(widest(-scale * ball.distances(ring, ring)), curved)
    assert_close(widest(scale * ring @ ring.T), flat)
    draws = torch.randn(200, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    draws = norm * draws / draws.norm(dim=1, keepdim=True)
    assert widest(-scale * ball.distances(draws, draws)) <= curved
    assert widest(scale * draws @ draws.T) <= flat


def test_hyperbolic_margin_is_the_distance_of_opposites() -> None:
    ball = PoincareBall(0.3)
    points = ball.exp0(torch.linspace(0.1, 5, 20, dtype=torch.float64)[:, None] * torch.ones(3, dtype=torch.float64))
    assert_close(hyperbolic_margin(ball.norm(points), 2.0, ball), 2 * ball.distance(points, -points))


def test_hyperbolic_margin_grows_with_the_logarithm_of_what_is_left() -> None:
    ball = PoincareBall(4.0)
    left = torch.tensor([1e-6, 5e-7, 2.5e-7], dtype=torch.float64)
    margins = hyperbolic_margin(ball.radius * (1 - left), 1.5, ball)
    assert_close(margins.diff(), torch.full((2,), 2 * 1.5 / 2 * math.log(2), dtype=torch.float64), rtol=1e-5, atol=0)
    assert hyperbolic_margin(torch.tensor(ball.radius), 1.5, ball).isinf()
    assert euclidean_margin(torch.tensor(ball.radius), 1.5) == 0.75


def test_at_the_root_the_two_are_flat_and_sharp() -> None:
    """Near the origin the hyperbolic margin is linear in the norm (4 scale norm), the Euclidean one quadratic."""
    norm = torch.tensor(1e-4, dtype=torch.float64)
    assert hyperbolic_margin(norm, 1.0, PoincareBall(1.0)).item() == pytest.approx(4e-4, rel=1e-7)
    assert euclidean_margin(norm, 1.0).item() == pytest.approx(2e-8)
