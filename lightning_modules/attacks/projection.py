"""The perturbation set: a norm ball around the clean pixels, cut by the pixel range [0, 1]. All in float32."""

from typing import Literal

import torch
from torch import Tensor

from lightning_modules.attacks import noise

Norm = Literal["linf", "l2"]

_TINY = 1e-12  # as in AutoAttack's reference: a gradient of exactly 0 gives a step of 0


def project(pixels: Tensor, clean: Tensor, eps: float, norm: Norm) -> Tensor:
    """The pixels, moved into the ball of radius `eps` around `clean` and into [0, 1].

    For L-inf this is the nearest such point. For L2 it is the projection on the ball, then clamped: feasible, since
    `clean` is in the box, though not always the nearest.

    Args:
        pixels, clean: float32 (B, C, H, W), `clean` in [0, 1].
        eps: radius, in units of the pixel range [0, 1].
    """
    if norm == "linf":
        return pixels.clamp(clean - eps, clean + eps).clamp_(0.0, 1.0)
    perturbation = pixels - clean
    shrink = (eps / _length(perturbation).clamp_min(_TINY)).clamp_max(1.0)
    return perturbation.mul_(shrink).add_(clean).clamp_(0.0, 1.0)


def direction(gradient: Tensor, norm: Norm) -> Tensor:
    """Steepest ascent of a linear function over the unit ball: the sign (L-inf), the gradient over its length (L2)."""
    return gradient.sign() if norm == "linf" else gradient / (_length(gradient) + _TINY)


def uniform_start(clean: Tensor, seeds: Tensor, eps: float, norm: Norm) -> Tensor:
    """PGD's random start: uniform in the L-inf ball; uniform on the L2 sphere. Clamped to [0, 1]."""
    if norm == "linf":
        return noise.uniform(seeds, clean.shape[1:]).mul_(eps).add_(clean).clamp_(0.0, 1.0)
    return direction(noise.normal(seeds, clean.shape[1:]), norm).mul_(eps).add_(clean).clamp_(0.0, 1.0)


def boundary_start(clean: Tensor, seeds: Tensor, eps: float, norm: Norm) -> Tensor:
    """AutoPGD's random start, always on the boundary of the ball: for L-inf a uniform draw, scaled to length eps."""
    if norm == "l2":
        return uniform_start(clean, seeds, eps, norm)
    draw = noise.uniform(seeds, clean.shape[1:])
    longest = draw.abs().flatten(1).amax(1).view(-1, 1, 1, 1) + _TINY
    return draw.div_(longest).mul_(eps).add_(clean).clamp_(0.0, 1.0)


def _length(vectors: Tensor) -> Tensor:
    length: Tensor = torch.linalg.vector_norm(vectors, dim=(1, 2, 3), keepdim=True)
    return length
