"""The texts of a bank, as a head has them."""

from dataclasses import dataclass

from torch import Tensor

from configs.errors import DataError


@dataclass(frozen=True, eq=False)
class Negatives:
    """N texts that describe nothing in-distribution.

    points  (N, D), of the head's `texts`.
    owners  int64 (N,), the class that an antibody was made for; -1: none.

    Raises:
        DataError: no texts, or another number of owners.
    """

    points: Tensor
    owners: Tensor

    def __post_init__(self) -> None:
        if not len(self.points) or self.owners.shape != self.points.shape[:1]:
            raise DataError(
                f"a bank needs at least one text and an owner for each, got {len(self.points)} texts and owners of "
                f"shape {tuple(self.owners.shape)}; build the bank again"
            )

    def __len__(self) -> int:
        return len(self.points)
