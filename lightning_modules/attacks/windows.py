"""Square windows of an image, one per sample with a side of its own, and the patterns that Square draws in them."""

import math
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""After these iterations the share of pixels that a window covers is halved (Andriushchenko et al. 2020, sec. 5)."""

_SHARE = 0.8  # of the pixels, at first


class Windows(NamedTuple):
    """B windows: row of the top, column of the left, side; int64 (B,) each, in pixels."""

    top: Tensor
    left: Tensor
    side: Tensor

    def mask(self, height: int, width: int) -> Tensor:
        """bool (B, 1, H, W): inside."""
        rows, columns = self.offsets(height, width)
        side = self.side[:, None]
        inside_rows, inside_columns = (rows >= 0) & (rows < side), (columns >= 0) & (columns < side)
        return (inside_rows[:, :, None] & inside_columns[:, None, :])[:, None]

    def offsets(self, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Rows below the top, (B, H), and columns right of the left, (B, W); negative above and to the left."""
        rows = torch.arange(height, device=self.top.device)
        columns = torch.arange(width, device=self.top.device)
        return rows - self.top[:, None], columns - self.left[:, None]


def place(side: Tensor, draws: Tensor, height: int, width: int) -> Windows:
    """Windows of these sides, int64 (B,), at random: `draws` (B, 2) in [-1, 1). As in AutoAttack's reference, a window
    that leaves room does not reach the last row or column."""
    room = torch.stack([height - side, width - side], dim=1)
    top, left = (room * (draws + 1.0) / 2.0).long().unbind(1)
    return Windows(top, left, side)


def level(iteration: Tensor) -> Tensor:
    """How often the share has been halved before this iteration, int64 (B,)."""
    return torch.bucketize(iteration, _tensor(_HALVINGS, iteration.device))


def side(levels: Tensor, height: int, width: int, odd: bool) -> Tensor:
    """Side of the windows at these levels, int64 (B,); `odd` ones have at least 3 pixels, where the image has."""
    return _tensor(sides(height, width, odd), levels.device)[levels]


@cache
def sides(height: int, width: int, odd: bool) -> tuple[int, ...]:
    """Side of the windows, by level."""
    covered = [round(math.sqrt(_SHARE / 2**halvings * height * width)) for halvings in range(len(_HALVINGS) + 1)]
    wanted = [max(each, 3) // 2 * 2 + 1 if odd else max(each, 1) for each in covered]
    return tuple(min(each, height, width) for each in wanted)


@cache
def patterns(sides: tuple[int, ...], power: int, device: torch.device) -> Tensor:
    """The pattern of each side, upright and on its side, within a margin of zeros: float32 (sides, 2, S + 2, S + 2)."""
    table = torch.zeros(len(sides), 2, max(sides) + 2, max(sides) + 2, dtype=torch.float64)
    for number, each in enumerate(sides):
        upright = _pattern(each, power)
        table[number, :, 1 : each + 1, 1 : each + 1] = torch.stack([upright, upright.T])
    return table.float().to(device)


def draw_pattern(windows: Windows, kind: Tensor, table: Tensor, height: int, width: int) -> Tensor:
    """The patterns (see `patterns`) in place: float32 (B, 1, H, W), 0 outside the windows.

    Args:
        kind: int64 (B,), 2 * number of the side in the table + 1 where it lies on its side.
    """
    extent = table.shape[-1]
    rows, columns = (
        (offset + 1).clamp_min(0).minimum(windows.side[:, None] + 1) for offset in windows.offsets(height, width)
    )
    places = (kind[:, None] * extent + rows)[:, :, None] * extent + columns[:, None, :]
    return table.take(places)[:, None]


def _pattern(side: int, power: int) -> Tensor:
    """Two halves, one positive and one negative, each with a peak in its middle (eq. 2); of length 1, L2 for `power` 2
    and L1 for 1. float64 (side, side)."""
    half = side // 2
    both = torch.cat([_peak(half, side, power), -_peak(side - half, side, power)])
    return both / both.abs().pow(power).sum().pow(1 / power)


def _peak(height: int, width: int, power: int) -> Tensor:
    """Falls off with the Chebyshev distance from the middle: by the inverse squares of the steps that lie further out,
    and by the fourth powers for L1. Of length 1."""
    rows, columns = torch.arange(height) - height // 2, torch.arange(width) - width // 2
    distance = torch.maximum(rows.abs()[:, None], columns.abs()[None, :])
    steps = torch.arange(1, max(height, width) // 2 + 2, dtype=torch.float64)
    fall = steps.pow(-2.0 if power == 2 else -4.0).flip(0).cumsum(0).flip(0)
    peak = fall[distance]
    return peak / peak.abs().pow(power).sum().pow(1 / power)


@cache
def _tensor(values: tuple[int, ...], device: torch.device) -> Tensor:
    return torch.tensor(values, device=device)
