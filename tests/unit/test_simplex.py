"""Projection on the L1 ball cut by the box, against bisection in double precision, and the sparse ascent direction."""

import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from lightning_modules.attacks.simplex import direction, project
from tests.unit.networks import images


def nearest(point: Tensor, clean: Tensor, radius: float) -> Tensor:
    """One sample: min |z - p| with sum |z - c| <= radius, z in [0, 1]. The multiplier of the sum by bisection."""
    point, clean = point.double(), clean.double()
    delta = point - clean

    def shrunk(multiplier: float) -> Tensor:
        return (clean + delta.sign() * (delta.abs() - multiplier).clamp_min(0)).clamp(0, 1)

    low, high = 0.0, float(delta.abs().max())
    if (shrunk(low) - clean).abs().sum() <= radius:
        return shrunk(low)
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if (shrunk(middle) - clean).abs().sum() > radius else (low, middle)
    return shrunk(high)


def points(count: int, seed: int, spread: float) -> tuple[Tensor, Tensor]:
    """Clean images, some of whose pixels are at the ends of the range, and points around them."""
    clean = images(count, seed=seed, low=-0.3, high=1.3).clamp(0, 1)
    return clean, clean + spread * torch.randn(clean.shape, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), spread=st.floats(1e-3, 10), radius=st.floats(1e-2, 300))
@example(seed=270, spread=0.001953125, radius=0.25)  # where rounding to the nearest left the radius
def test_is_the_nearest_point(seed: int, spread: float, radius: float) -> None:
    clean, pixels = points(3, seed, spread)
    radii = torch.tensor([radius, radius / 3, radius * 2])
    found = project(pixels, clean, radii)
    for row in range(3):
        expected = nearest(pixels[row], clean[row], float(radii[row]))
        scale = max(1.0, float(radii[row]), spread)  # float32 resolves a share of how far away a point is
        torch.testing.assert_close(found[row].double(), expected, rtol=0, atol=1e-6 * scale)
    assert ((found - clean).double().abs().sum((1, 2, 3)) <= radii * (1 + 1e-6) + 1e-6).all()
    assert found.min() >= 0
    assert found.max() <= 1


def test_points_of_the_set_stay() -> None:
    clean, pixels = points(8, seed=1, spread=0.01)
    pixels = pixels.clamp(0, 1)
    torch.testing.assert_close(project(pixels, clean, torch.full((8,), 5.0)), pixels, rtol=0, atol=1e-6)


def test_what_comes_home_is_exactly_clean() -> None:
    """The number of touched coordinates is that of the exact solution, rounding errors do not count."""
    clean, pixels = points(8, seed=2, spread=1.0)
    found = project(pixels, clean, torch.full((8,), 2.0))
    for row in range(8):
        touched = (nearest(pixels[row], clean[row], 2.0) - clean[row].double()).abs() > 1e-6
        assert torch.equal(found[row] != clean[row], touched)
        assert 0 < touched.sum() < touched.numel()


def test_coordinates_that_tie() -> None:
    """Two coordinates at half the radius each, one pushed further by the radius: the threshold equals the other."""
    clean = torch.full((1, 3, 8, 8), 0.3)
    pixels = clean.clone()
    pixels[0, 0, 0, 0] += 0.6
    pixels[0, 0, 0, 1] += 0.2
    found = project(pixels, clean, torch.tensor([0.4])) - clean
    torch.testing.assert_close(found[0, 0, 0, :2], torch.tensor([0.4, 0.0]))
    assert (found != 0).sum() == 1


def test_samples_do_not_see_each_other() -> None:
    clean, pixels = points(6, seed=3, spread=1.0)
    radii, shares = torch.linspace(0.5, 9.0, 6), torch.linspace(0.05, 0.8, 6)
    together, signs = project(pixels, clean, radii), direction(pixels, shares)
    for row in range(6):
        one = slice(row, row + 1)
        assert torch.equal(project(pixels[one], clean[one], radii[one]), together[one])
        assert torch.equal(direction(pixels[one], shares[one]), signs[one])


@given(seed=st.integers(0, 10**6), share=st.floats(0.01, 0.99))
@settings(max_examples=30, deadline=None)
def test_direction_climbs_along_the_largest_entries(seed: int, share: float) -> None:
    gradient = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    found = direction(gradient, torch.full((2,), share))
    torch.testing.assert_close(found.abs().sum((1, 2, 3)), torch.ones(2))
    for row in range(2):
        chosen, count = found[row] != 0, int((found[row] != 0).sum())
        assert abs(count - share * 192) <= 1
        assert gradient[row][chosen].abs().min() >= gradient[row][~chosen].abs().max()
        ascent = (found[row] * gradient[row]).sum()
        torch.testing.assert_close(ascent, gradient[row].abs().flatten().topk(count).values.mean())


def test_no_gradient_no_step() -> None:
    assert not direction(torch.zeros(2, 3, 8, 8), torch.full((2,), 0.2)).any()
