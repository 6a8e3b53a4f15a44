"""The von Mises-Fisher distribution on the unit sphere of D dimensions: C_D(kappa) exp(kappa mu^T z)."""

import math

import torch
from torch import Tensor

_ORDER = 100.0  # from which on four terms of Olver's expansion leave an error below 1e-10
# U_1 .. U_4 of DLMF 10.41.10: coefficients of p^k, p^(k+2), ...
_OLVER = (
    (3 / 24, -5 / 24),
    (81 / 1152, -462 / 1152, 385 / 1152),
    (30375 / 414720, -369603 / 414720, 765765 / 414720, -425425 / 414720),
    (
        4465125 / 39813120,
        -94121676 / 39813120,
        349922430 / 39813120,
        -446185740 / 39813120,
        185910725 / 39813120,
    ),
)


def concentration(resultant: Tensor, dimension: int) -> Tensor:
    """kappa = R (D - R^2) / (1 - R^2), Banerjee et al. 2005, eq. 4.4.

    Args:
        resultant: R, the mean of mu^T z over unit vectors z; where mu is their own mean direction, the length of their
            mean. It is clamped to [1e-6, 1 - 1e-6]: a single vector has no concentration.

    Returns:
        float64, of the shape of R.
    """
    length = resultant.double().clamp(1e-6, 1 - 1e-6)
    return length * (dimension - length**2) / (1 - length**2)


def log_normaliser(kappa: Tensor, dimension: int) -> Tensor:
    """log C_D(kappa) = (D/2 - 1) log kappa - D/2 log 2 pi - log I_{D/2 - 1}(kappa) (Banerjee et al. 2005, eq. 2.2).

    Args:
        kappa: > 0.
        dimension: D >= 2.

    Returns:
        float64, of the shape of kappa; finite where the Bessel function itself is not.
    """
    kappa, order = kappa.double(), dimension / 2 - 1
    return order * kappa.log() - dimension / 2 * math.log(2 * math.pi) - log_bessel(order, kappa)


def log_bessel(order: float, argument: Tensor) -> Tensor:
    """log I_order(argument), of the modified Bessel function of the first kind, for order >= 0 and argument > 0.

    Uniform expansion for large orders (DLMF 10.41.3); smaller orders are reached by the downward recurrence of ratios
    of neighbours (DLMF 10.29.1), which is stable.
    """
    steps = max(0, math.ceil(_ORDER - order))
    top = order + steps
    found = _olver(top, argument)
    if steps:
        ratio = (_olver(top + 1, argument) - found).exp()
        for step in range(steps):
            ratio = 1 / (2 * (top - step) / argument + ratio)  # I_v / I_{v-1}, v = top - step
            found = found - ratio.log()
    return found


def _olver(order: float, argument: Tensor) -> Tensor:
    scaled = argument / order
    root = torch.hypot(scaled, torch.ones_like(scaled))
    exponent = root + (scaled / (1 + root)).log()
    reciprocal = 1 / root
    series = 1 + sum(
        coefficient * reciprocal ** (term + 2 * place) / order**term
        for term, polynomial in enumerate(_OLVER, 1)
        for place, coefficient in enumerate(polynomial)
    )
    return order * exponent - 0.5 * math.log(2 * math.pi * order) - 0.5 * root.log() + torch.as_tensor(series).log()
