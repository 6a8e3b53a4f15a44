"""The residual adapter on frozen embeddings, the only thing that vaccination trains."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Adapter(nn.Module):
    """f(z) = norm(z + MLP(z)), with one hidden layer of GELUs; its last layer is zero at first, so that f is then the
    identity. In float32 whatever precision surrounds it.

    Args:
        dimension: D of the embeddings.
        hidden: width of the hidden layer.
        seed: of the hidden layer's weights; the global generator is left alone.
    """

    def __init__(self, dimension: int, hidden: int, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.inward, self.outward = nn.Linear(dimension, hidden), nn.Linear(hidden, dimension)
        nn.init.zeros_(self.outward.weight)
        nn.init.zeros_(self.outward.bias)

    @property
    def dimension(self) -> int:
        """D."""
        return self.inward.in_features

    def forward(self, embeddings: Tensor) -> Tensor:
        """Unit vectors float32 (B, D) of embeddings (B, D), which are normalised first."""
        with torch.autocast(embeddings.device.type, enabled=False):
            points = F.normalize(embeddings.float(), dim=-1)
            return F.normalize(points + self.outward(F.gelu(self.inward(points))), dim=-1)
