"""An average of the weights over training, which is often better than the last of them."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from lightning_modules.sharding import gathered, placed_like


def learnt(module: nn.Module) -> dict[str, Tensor]:
    """By name, what training changes of a module's state: parameters that require a gradient, and statistics."""
    frozen = {name for name, weight in module.named_parameters() if not weight.requires_grad}
    state = module.state_dict()
    return {name: value for name, value in state.items() if name not in frozen and value.is_floating_point()}


class MovingAverage:
    """The exponential moving average of tensors, in float32 beside each of them: a_t = d_t a_(t-1) + (1 - d_t) w_t.

    It starts as the tensors are. The decay rises to the given one, d_t = min(decay, (1 + t) / (10 + t)) at the t-th
    update, so that the start does not outweigh a short training (TensorFlow's `ExponentialMovingAverage`).
    """

    def __init__(self, tensors: Mapping[str, Tensor], decay: float) -> None:
        self.decay = decay
        self.averages = {name: tensor.detach().float().clone() for name, tensor in tensors.items()}

    @torch.no_grad()
    def update(self, tensors: Mapping[str, Tensor], count: int) -> None:
        """The update number `count`, from 1, with the tensors as they are now."""
        share = 1 - min(self.decay, (1 + count) / (10 + count))
        for name, average in self.averages.items():
            average.lerp_(tensors[name].float(), share)

    def state_dict(self) -> dict[str, Tensor]:
        """The averages, whole on every rank, which all have to ask."""
        return {name: gathered(average) for name, average in self.averages.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Takes the averages of another one's `state_dict`, of the same names."""
        for name, average in self.averages.items():
            average.copy_(placed_like(average, state[name]))


@torch.no_grad()
def assign(tensors: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    """Writes whole values, in whatever precision, or ones placed alike, into tensors of the same names."""
    for name, tensor in tensors.items():
        tensor.copy_(placed_like(tensor, values[name]))
