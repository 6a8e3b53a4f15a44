"""An image tower of which every rank holds a share (FSDP2, Zhao et al. 2023, per parameter)."""

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from lightning_modules.backbones.blocks import blocks


def shard(visual: nn.Module, mesh: DeviceMesh) -> None:
    """Shares out the weights of an image tower over the ranks of a mesh, in place: each block gathers its own when it
    runs, and the tower what is left.

    Raises:
        ConfigError: a tower whose blocks are not known.
    """
    visual.to(memory_format=torch.contiguous_format)  # no other is shared out
    for block in blocks(visual):
        fully_shard(block, mesh=mesh)
    fully_shard(visual, mesh=mesh, reshard_after_forward=True)  # also without a backward, so that weights can be read


def gathered(value: Tensor) -> Tensor:
    """The whole of a tensor that may be shared out, on every rank; all ranks have to ask."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def local(value: Tensor) -> Tensor:
    """This rank's share of a tensor that may be shared out."""
    return value.to_local() if isinstance(value, DTensor) else value


def placed_like(other: Tensor, value: Tensor) -> Tensor:
    """This rank's share of a whole tensor, where `other`, of the same shape, is shared out; the tensor itself
    otherwise."""
    if not isinstance(other, DTensor) or isinstance(value, DTensor):
        return value
    return distribute_tensor(value.to(other.device), other.device_mesh, other.placements)
