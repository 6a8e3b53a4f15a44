"""Range checks of single fields, shared by all sections."""

import math

from configs.errors import FieldError


def at_least(minimum: float, **fields: float | None) -> None:
    """Each field is null or >= `minimum`, and finite."""
    for name, value in fields.items():
        if value is not None and not (minimum <= value < math.inf):
            raise FieldError(name, f"must be >= {minimum}, got {value}")


def above(bound: float, **fields: float | None) -> None:
    """Each field is null or > `bound`, and finite."""
    for name, value in fields.items():
        if value is not None and not (bound < value < math.inf):
            raise FieldError(name, f"must be > {bound}, got {value}")


def fraction(**fields: float) -> None:
    """Each field is in [0, 1)."""
    for name, value in fields.items():
        if not 0 <= value < 1:
            raise FieldError(name, f"must be in [0, 1), got {value}")


def radius(norm: str, eps_255: float) -> None:
    """`eps_255` is above 0 and finite; under linf no larger than the pixel range."""
    bounded = norm == "linf"
    if not (0 < eps_255 < math.inf) or (bounded and eps_255 > 255):
        bound = " and <= 255" if bounded else ""
        raise FieldError("eps_255", f"must be > 0{bound}, in 1/255 of the pixel range, got {eps_255}")
