"""Square as the paper has it, in numpy, for one sample, one channel and one window at a time."""

import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_modules.attacks import noise
from lightning_modules.attacks.square import Square

Array = NDArray[np.float64]
ORDER = {"linf": np.inf, "l2": 2, "l1": 1}


def covered_share(iteration: int) -> float:
    """The paper's schedule for 10,000 queries, p_init 0.8."""
    return 0.8 / 2 ** sum(iteration > last for last in (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000))


def peak(height: int, width: int, norm: str) -> Array:
    """Boxes that grow by one cell on each side, each weaker than the one before."""
    total = np.zeros((height, width))
    for ring in range(max(height, width) // 2 + 1):
        top, left = height // 2 - ring, width // 2 - ring
        box = (slice(max(top, 0), top + 2 * ring + 1), slice(max(left, 0), left + 2 * ring + 1))
        total[box] += (ring + 1.0) ** (-2 if norm == "l2" else -4)
    return total / (size(total, norm) or 1.0)


def size(values: Array, norm: str) -> float:
    return float(np.linalg.norm(values.ravel(), ORDER[norm]))


def pattern(side: int, norm: str, lying: bool) -> Array:
    both = np.concatenate([peak(side // 2, side, norm), -peak(side - side // 2, side, norm)])
    both /= size(both, norm)
    return both.T if lying else both


def feasible(delta: Array, clean: Array, eps: float, norm: str) -> Array:
    if norm == "l2":
        return np.clip(clean + delta * eps / size(delta, norm), 0, 1)
    low, high = 0.0, float(np.abs(delta).max())
    for _ in range(60):
        middle = (low + high) / 2
        point = np.clip(clean + np.sign(delta) * np.maximum(np.abs(delta) - middle, 0), 0, 1)
        low, high = (middle, high) if size(point - clean, norm) > eps * (1 - 1e-6) else (low, middle)
    return np.clip(clean + np.sign(delta) * np.maximum(np.abs(delta) - high, 0), 0, 1)


def first_point(clean: Array, draws: Array, eps: float, norm: str) -> Array:
    channels, height, width = clean.shape
    if norm == "linf":
        return np.clip(clean + eps * np.sign(draws.reshape(channels, 1, width)), 0, 1)
    side, numbers, delta = height // 5, iter(draws), np.zeros_like(clean)
    margin_ = (height - 5 * side) // 2
    for row in range(height // side):
        for column in range(width // side):
            lying = next(numbers) > 0
            top, left = margin_ + row * side, margin_ + column * side
            for channel in range(channels):
                room = delta[channel, top : top + side, left : left + side]
                room += np.sign(next(numbers)) * pattern(side, norm, lying)[: room.shape[0], : room.shape[1]]
    return feasible(delta, clean, eps, norm)


def position(draw: float, room: int) -> int:
    return math.floor(room * (draw + 1) / 2)


def next_point(best: Array, clean: Array, draws: Array, iteration: int, eps: float, norm: str) -> Array:
    channels, height, width = clean.shape
    side = round(math.sqrt(covered_share(iteration) * height * width))
    if norm != "linf":
        side = max(side, 3) + (max(side, 3) % 2 == 0)
    side = min(max(side, 1), height, width)
    top, left = position(draws[0], height - side), position(draws[1], width - side)
    window = (slice(top, top + side), slice(left, left + side))
    if norm == "linf":
        point = best.copy()
        for channel in range(channels):
            moved = best[channel][window] + 2 * eps * np.sign(draws[2 + channel])
            near = np.clip(moved, clean[channel][window] - eps, clean[channel][window] + eps)
            point[channel][window] = np.clip(near, 0, 1)
        return point
    top, left = position(draws[2], height - side), position(draws[3], width - side)
    other, delta, power = (slice(top, top + side), slice(left, left + side)), best - clean, ORDER[norm]
    unused = max(eps**power - size(delta, norm) ** power, 0.0)
    for channel, plane in enumerate(delta):
        union = np.zeros((height, width), dtype=bool)
        union[window] = union[other] = True
        budget = (unused / channels + size(plane[union], norm) ** power) ** (1 / power)
        fresh = np.sign(draws[5 + channel]) * pattern(side, norm, bool(draws[4] > 0))
        fresh = fresh + plane[window] / (size(plane[window], norm) + 1e-12)
        plane[other] = 0
        plane[window] = fresh / (size(fresh, norm) + 1e-12) * budget * (channels if norm == "l1" else 1)
    return feasible(delta, clean, eps, norm)


def published(
    method: Square, model: Callable[[Tensor], Tensor], clean: Tensor, label: Tensor, seed: Tensor
) -> tuple[list[Array], list[float]]:
    """One sample (1, C, H, W): the points and their margins, best other class minus label."""
    _, channels, height, width = clean.shape
    tiles = (height // (height // 5)) * (width // (height // 5))
    counts = (channels * width, 2 + channels) if method.norm == "linf" else (tiles * (1 + channels), 5 + channels)
    trial, start = noise.derive(seed, 0), clean[0].double().numpy()

    def draws(iteration: int) -> Array:
        return method.draw(trial, torch.tensor([iteration]), counts[iteration > 0])[0].double().numpy()

    points, losses, best, best_loss = [], [], start, -np.inf
    for query in range(method.proposals + 1):
        if query:
            point = next_point(best, start, draws(query), query - 1, method.eps, method.norm)
        else:
            point = first_point(start, draws(0), method.eps, method.norm)
        point = point.astype(np.float32).astype(np.float64)
        logits = model(torch.from_numpy(point)[None])[0].detach()
        loss = float(logits[torch.arange(len(logits)) != label].max() - logits[label])
        points.append(point)
        losses.append(loss)
        best, best_loss = (point, loss) if loss > best_loss else (best, best_loss)
    return points, losses
