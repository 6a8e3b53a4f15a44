"""Timing loops against each other: all of them in every round, and ratios within a round."""

import time
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any

import torch


def timed(loop: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds that a call takes, work on the GPU included, and what it returns."""
    _synchronise()
    began = time.perf_counter()
    found = loop()
    _synchronise()
    return time.perf_counter() - began, found


def interleaved(loops: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each loop in each round; a first round warms up and does not count."""
    taken: dict[str, list[float]] = {name: [] for name in loops}
    for number in range(1 + rounds):
        for name, loop in loops.items():
            seconds, _ = timed(loop)
            if number:
                taken[name].append(seconds)
    return taken


def paired_ratio(loop: list[float], other: list[float]) -> float:
    """The median over the rounds: what slows the machine down for a while slows both sides of a round."""
    return median(own / others for own, others in zip(loop, other, strict=True))


def _synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
