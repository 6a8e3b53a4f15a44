"""The Poincare ball, where a tree fits with its root at the origin and its leaves towards the rim.

`geoopt` is an oracle in the tests and no dependency here, because it has no matrix of distances, and computes in the
precision that it is given: in float32 its exp map puts long vectors on the rim itself, and coincident points have
gradients of the order of 1 instead of 0; a half-precision input stays in half precision.

Precision: every function computes in float64 where the device has it and returns the precision that came in, at least
float32, under autocast too. What is near the rim or near to each other is a difference of nearly equal numbers, and the
tensors are small beside those of a backbone.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from configs.schema.checks import above

_TINY = 1e-30  # a length below which a vector is the zero vector


def reach(dtype: torch.dtype) -> float:
    """How far out points are kept, as a fraction of the ball's radius: 1 - 2^-10 in float32, 1 - 2^-39 in float64.

    Up to there, rounding a point leaves its distance to the origin right to 1e-5. That is a tangent vector of length
    3.8 / sqrt r in float32 (13.9 / sqrt r in float64): longer ones land on the same sphere.
    """
    return 1 - 2**13 * torch.finfo(_kept(dtype)).eps


@dataclass(frozen=True)
class PoincareBall:
    """All x with r ||x||^2 < 1 (Ganea et al. 2018, section 2; the ball D_r of Dong et al. 2026, arXiv 2604.18867).

    Values and gradients are finite everywhere: at coincident points, at the origin and at the rim. Where a length has
    no gradient, as at 0, it is 0; beyond `reach`, the gradient along the radius is 0.

    curvature  r > 0; sectional curvature is -r, and the ball's radius 1 / sqrt r.

    Raises:
        FieldError: a curvature that is not above 0.
    """

    curvature: float

    def __post_init__(self) -> None:
        above(0, curvature=self.curvature)

    @property
    def radius(self) -> float:
        """Euclidean radius of the ball, 1 / sqrt r; no point gets there."""
        return self.curvature**-0.5

    def norm(self, points: Tensor) -> Tensor:
        """Euclidean norms (...) of points (..., D): the paper's depth eta, 0 (general) to the radius (specific)."""
        return _length(_wide(points)).squeeze(-1).to(_kept(points.dtype))

    def project(self, points: Tensor) -> Tensor:
        """Points (..., D), those outside of the ball or too near to its rim pulled back along their radius."""
        wide = _wide(points)
        shrink = (reach(points.dtype) * self.radius / _length(wide).clamp_min(_TINY)).clamp_max(1)
        return (wide * shrink).to(_kept(points.dtype))

    def exp0(self, vectors: Tensor) -> Tensor:
        """Points (..., D) at the ends of geodesics from the origin; their distance from it is twice the length of
        the tangent vectors (..., D)."""
        wide = _wide(vectors)
        length = (_length(wide) / self.radius).clamp_min(_TINY)
        fraction = length.clamp_max(math.atanh(reach(vectors.dtype))).tanh()
        return (wide * (fraction / length)).to(_kept(vectors.dtype))

    def log0(self, points: Tensor) -> Tensor:
        """Tangent vectors (..., D) of points (..., D): the inverse of `exp0` up to `reach`."""
        wide = _wide(points)
        fraction = (_length(wide) / self.radius).clamp_min(_TINY)
        length = fraction.clamp_max(reach(points.dtype)).atanh()
        return (wide * (length / fraction)).to(_kept(points.dtype))

    def distance(self, x: Tensor, y: Tensor) -> Tensor:
        """Hyperbolic distances (...) of points (..., D) in pairs, (2 / sqrt r) artanh(sqrt r ||-x (+) y||)."""
        dtype = torch.promote_types(x.dtype, y.dtype)
        x, y = _wide(x), _wide(y)
        shrink = (self._gap(x, dtype) * self._gap(y, dtype)).rsqrt()
        return self._hyperbolic((_length(x - y) * shrink).squeeze(-1)).to(_kept(dtype))

    def distances(self, x: Tensor, y: Tensor) -> Tensor:
        """Hyperbolic distances (B, N) of points (B, D) to points (N, D), by one matrix product.

        Two rows that are nearer than 4e-8 of their norm can't be told apart: their distance is 0, and its gradient.
        """
        dtype = torch.promote_types(x.dtype, y.dtype)
        x, y = _wide(x), _wide(y)
        shrink = self._gap(x, dtype).rsqrt() * self._gap(y, dtype).rsqrt().T
        return self._hyperbolic(_euclidean(x, y) * shrink).to(_kept(dtype))

    def add(self, x: Tensor, y: Tensor) -> Tensor:
        """Moebius sums x (+) y (..., D) of points (..., D) in pairs: y, moved as x moves the origin."""
        dtype = torch.promote_types(x.dtype, y.dtype)
        x, y = _wide(x), _wide(y)
        # The usual form in other words: with s = x + y, none of the terms of the denominator can cancel another.
        total, gap = x + y, self._gap(x, dtype)
        square = self.curvature * total.square().sum(-1, keepdim=True)
        moved = (gap * total + square * x) / (gap * self._gap(y, dtype) + square)
        return self.project(moved.to(_kept(dtype)))

    def midpoint(self, points: Tensor, groups: Tensor, count: int) -> Tensor:
        """Einstein midpoint of each group of points (Dong et al. 2026, eq. 8): the mean in Klein coordinates, weighted
        with the Lorentz factors. Of two points it is the middle of their geodesic; an empty group has the origin.

        Args:
            points: (B, D).
            groups: int64 (B,), the group of each point, below `count`.

        Returns:
            (count, D). Midpoints of midpoints should leave empty groups out, as the origin would count.
        """
        wide = _wide(points)
        # k = 2p / (1 + r p^2) has the factor gamma = 2 / (1 - r p^2) - 1, so that gamma k = (gamma + 1) p.
        doubled = 2 / self._gap(wide, points.dtype)
        weights = wide.new_zeros(count, 1).index_add(0, groups, doubled - 1)
        totals = wide.new_zeros(count, wide.shape[1]).index_add(0, groups, doubled * wide)
        # (weights, totals) is a sum of unit time-like vectors of Minkowski space: at least 1 long, where there are any.
        lengths = (weights.square() - self.curvature * totals.square().sum(1, keepdim=True)).clamp_min(1).sqrt()
        return (totals / (weights + lengths)).to(_kept(points.dtype))

    def _gap(self, wide: Tensor, dtype: torch.dtype) -> Tensor:
        """1 - r ||x||^2, (..., 1) of points (..., D), above 0 even for those on the rim or outside."""
        return (1 - self.curvature * wide.square().sum(-1, keepdim=True)).clamp_min(1 - reach(dtype))

    def _hyperbolic(self, stretched: Tensor) -> Tensor:
        """The distance, of ||x - y|| / sqrt((1 - r ||x||^2)(1 - r ||y||^2)). This form is exact for near points, where
        that with arcosh has no digits left."""
        return 2 * self.radius * (stretched / self.radius).asinh()


def _euclidean(x: Tensor, y: Tensor) -> Tensor:
    """||x - y||, (B, N) of rows (B, D) and (N, D).

    By ||x||^2 + ||y||^2 - 2 x.y in float64. On one CPU core with (B, N, D) = (256, 2000, 512), forward and backward
    take 16 + 16 ms; `torch.cdist` without the product takes 172 + 163 ms. The same product in float32 takes 8 + 9 ms,
    but errs by 9 % for points 1e-3 apart, where float64 errs by 3e-8, and by more under TF32.
    """
    with torch.autocast(x.device.type, enabled=False):
        norms = x.square().sum(1, keepdim=True) + y.square().sum(1)
        squares = torch.addmm(norms, x, y.T, alpha=-2)
    apart = squares > 4 * torch.finfo(squares.dtype).eps * norms  # else it is what rounding leaves of 0
    return squares.where(apart, 1).sqrt() * apart


def _length(vectors: Tensor) -> Tensor:
    """Norms (..., 1) of vectors (..., D), whose gradient at 0 is 0."""
    length: Tensor = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
    return length


def _wide(tensor: Tensor) -> Tensor:
    """In the precision to compute in; Apple's devices have no float64."""
    return tensor.to(torch.float32 if tensor.device.type == "mps" else torch.float64)


def _kept(dtype: torch.dtype) -> torch.dtype:
    """The precision of results, of inputs in `dtype`."""
    return torch.promote_types(dtype, torch.float32)
