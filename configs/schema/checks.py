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
