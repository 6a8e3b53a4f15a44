"""FSDP2 in Lightning, with checkpoints like everyone's."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from lightning_modules.sharding import gathered, placed_like


class ShardedStrategy(ModelParallelStrategy):
    """Data parallelism over a model that `configure_model` shares out.

    Checkpoints are those of DistributedDataParallel: whole tensors, the optimiser's state under the same numbers,
    through the Trainer's CheckpointIO. So neither the number of ranks nor the strategy is in them. Lightning's own are
    read around the CheckpointIO, and number the optimiser's state otherwise.
    """

    def __init__(self, ranks: int, backend: str | None = None) -> None:
        """
        Args:
            backend: of the ranks' collectives; None: Lightning's choice.
        """
        super().__init__(
            data_parallel_size=ranks,
            tensor_parallel_size=1,
            save_distributed_checkpoint=False,
            process_group_backend=backend,
        )

    @property
    def lightning_restore_optimizer(self) -> bool:
        """By `load_optimizer_state_dict`."""
        return True

    def post_backward(self, closure_loss: Tensor) -> None:
        """Averages over ranks the gradients of what is not shared out. Averaging those of an earlier batch again, where
        batches are accumulated, leaves them as they are."""
        super().post_backward(closure_loss)
        assert self.lightning_module is not None
        for weight in self.lightning_module.parameters():
            if weight.grad is not None and not isinstance(weight, DTensor):
                dist.all_reduce(weight.grad)
                weight.grad.div_(self.world_size)

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Whole tensors, on every rank."""
        assert self.lightning_module is not None
        return {name: gathered(value).cpu() for name, value in self.lightning_module.state_dict().items()}

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """What the CheckpointIO reads; every rank reads the file."""
        return self.checkpoint_io.load_checkpoint(checkpoint_path)

    @torch.no_grad()
    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """This rank's shares of whole tensors."""
        assert self.lightning_module is not None
        ours = self.lightning_module.state_dict()
        for name, value in checkpoint["state_dict"].items():
            ours[name].copy_(placed_like(ours[name], value))

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """As the optimiser gives it, of whole tensors, on every rank."""
        state: dict[str, Any] = optimizer.state_dict()
        whole = {
            number: {
                name: gathered(value).cpu() if isinstance(value, Tensor) else value for name, value in kept.items()
            }
            for number, kept in state["state"].items()
        }
        return {**state, "state": whole}

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """This rank's shares of what `optimizer_state` gave."""
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            weights = dict(enumerate(weight for group in optimizer.param_groups for weight in group["params"]))
            shares = {
                number: {
                    name: placed_like(weights[number], value) if _fits(weights[number], value) else value
                    for name, value in kept.items()
                }
                for number, kept in state["state"].items()
            }
            optimizer.load_state_dict({**state, "state": shares})


def _fits(weight: Tensor, value: Any) -> bool:
    """Whether a part of an optimiser's state is one number for each of a weight's."""
    return isinstance(value, Tensor) and value.shape == weight.shape
