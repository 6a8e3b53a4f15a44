"""Shortest moves from a point of the pixel box onto a hyperplane, within the box: closed forms, by sorting.

Everything is per row, and nothing synchronises with the host. The three problems are those of Croce & Hein 2020
("Minimally distorted adversarial examples with a fast adaptive boundary attack", eq. 4 and appendix A).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from configs.schema.attack import AnyNorm

_TINY = 1e-30
DUALS: dict[AnyNorm, AnyNorm] = {"linf": "l1", "l2": "l2", "l1": "linf"}
_ORDERS: dict[AnyNorm, float] = {"linf": float("inf"), "l2": 2.0, "l1": 1.0}


def shortest_move(points: Tensor, normal: Tensor, height: Tensor, norm: AnyNorm) -> Tensor:
    """The move d of least norm with height + <normal, d> = 0 and points + d in [0, 1].

    Where the hyperplane misses the box, d leads to the corner that comes closest to it. Under L-inf every coordinate
    that counts moves, so that the solution is unique. A coordinate whose normal is 0 stays; the scale of (normal,
    height) does not matter.

    Args:
        points: float32 (B, N) in [0, 1].
        normal: float32 (B, N).
        height: float32 (B,): the affine function's value at the points.

    Returns:
        float32 (B, N).
    """
    heading = -height.sign()[:, None] * normal.sign()
    room = torch.where(heading > 0, 1.0 - points, points)
    scale = normal.abs().amax(1, keepdim=True).clamp_min(_TINY)  # squares of small normals must not underflow
    gain, gap = normal.abs() / scale, height.abs()[:, None] / scale
    if norm == "l1":
        return heading * _steepest_first(room, gain, gap)
    return heading * _side_by_side(room, gain, gap, pace=torch.ones_like(gain) if norm == "linf" else gain)


def length(moves: Tensor, norm: AnyNorm) -> Tensor:
    """Norm of each sample, float32 (B,), of moves (B, ...)."""
    norms: Tensor = torch.linalg.vector_norm(moves.flatten(1), _ORDERS[norm], dim=1)
    return norms


def _side_by_side(room: Tensor, gain: Tensor, gap: Tensor, pace: Tensor) -> Tensor:
    """min(time * pace, room) at the time when the sum of gain * move is the gap: all set out together, and each stops
    at the end of its room. Between two stops the sum grows linearly."""
    stops, order = (room / pace).masked_fill_(pace == 0, 0.0).sort(1)
    stopped = _before((gain * room).gather(1, order).cumsum(1))
    moving = (gain * pace).gather(1, order).flip(1).cumsum(1).flip(1)
    closed = (stopped + stops * moving < gap).sum(1, keepdim=True).clamp_max_(room.shape[1] - 1)
    time = (gap - stopped.gather(1, closed)) / moving.gather(1, closed).clamp_min_(_TINY)
    return torch.minimum(torch.minimum(time, stops[:, -1:]) * pace, room)


def _steepest_first(room: Tensor, gain: Tensor, gap: Tensor) -> Tensor:
    """Coordinates of highest gain use up their room, one after the other, until the sum of gain * move is the gap."""
    ranked, order = gain.sort(1, descending=True)
    ranked_room = room.gather(1, order)
    missing = gap - _before((ranked * ranked_room).cumsum(1))
    moves = torch.minimum(missing.clamp_min_(0.0) / ranked.clamp_min(_TINY), ranked_room)
    return torch.zeros_like(room).scatter_(1, order, moves)


def _before(sums: Tensor) -> Tensor:
    """Running sums without the place's own term."""
    return F.pad(sums[:, :-1], (1, 0))
