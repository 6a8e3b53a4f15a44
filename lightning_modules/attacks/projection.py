"""The perturbation set: a norm ball around the clean pixels, cut by the pixel range [0, 1]. All in float32."""

from typing import Literal

import torch
from torch import Tensor

from lightning_modules.attacks import noise

Norm = Literal["linf", "l2"]

_TINY = 1e-12  # as in AutoAttack's reference: a gradient of exactly 0 gives a step of 0


def project_(pixels: Tensor, clean: Tensor, eps: float, norm: Norm) -> Tensor:
    """Moves the pixels into the ball of radius `eps` around `clean` and into [0, 1], in place.

    For L-inf this is the nearest such point. For L2 it is the projection on the ball, then clamped: feasible, since
    `clean` is in the box, though not always the nearest.

    Args:
        pixels, clean: float32 (B, C, H, W), `clean` in [0, 1].
        eps: radius, in units of the pixel range [0, 1].
    """
    if norm == "linf":
        pixels.clamp_(min=clean - eps)  # a bound at a time, so that there is one more batch of images and not two
        return pixels.clamp_(max=clean + eps).clamp_(0.0, 1.0)
    pixels.sub_(clean)
    shrink = (eps / _length(pixels).clamp_min(_TINY)).clamp_max(1.0)
    return pixels.mul_(shrink).add_(clean).clamp_(0.0, 1.0)


def direction_(gradient: Tensor, norm: Norm) -> Tensor:
    """Steepest ascent of a linear function over the unit ball, in place: the sign of its gradient (L-inf), the gradient
    over its length (L2)."""
    return gradient.sign_() if norm == "linf" else gradient.div_(_length(gradient).add_(_TINY))


def uniform_start(clean: Tensor, seeds: Tensor, eps: float, norm: Norm) -> Tensor:
    """PGD's random start: uniform in the L-inf ball; uniform on the L2 sphere. Clamped to [0, 1]."""
    if norm == "linf":
        return noise.uniform(seeds, clean.shape[1:]).mul_(eps).add_(clean).clamp_(0.0, 1.0)
    return direction_(noise.normal(seeds, clean.shape[1:]), norm).mul_(eps).add_(clean).clamp_(0.0, 1.0)


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
