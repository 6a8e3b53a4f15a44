"""What the ranks of a run share. A process alone is a run of one rank."""

import torch
import torch.distributed as dist
from torch import Tensor


def position() -> tuple[int, int]:
    """This process's rank, and how many ranks there are."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def share(count: int) -> Tensor:
    """int64: this rank's part of 0 .. count - 1. Parts are of one size, in the ranks' order, so that `gathered`
    results lack nothing up to `count`; the last place is repeated where they don't come out even."""
    rank, world = position()
    each = -(-count // world)
    return torch.arange(rank * each, (rank + 1) * each).clamp_max(count - 1)


def gathered(values: Tensor) -> Tensor:
    """The values (B, ...) of all ranks in their order, (ranks * B, ...), without a gradient. B must be the same."""
    if not dist.is_initialized():
        return values
    everyone = [torch.empty_like(values) for _ in range(dist.get_world_size())]
    dist.all_gather(everyone, values.contiguous())
    return torch.cat(everyone)


def summed(values: Tensor) -> Tensor:
    """The values, which become the sum over all ranks in place."""
    if dist.is_initialized():
        dist.all_reduce(values)
    return values
