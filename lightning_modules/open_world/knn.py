"""Distance to a nearby training image."""

import torch
from torch import Tensor

from configs.errors import ConfigError
from lightning_modules.open_world.reference import Reference
from lightning_modules.open_world.score import Comparison, Score, exact

BLOCK = 2**24  # similarities at a time


class KNN(Score):
    """-||z - z_(k)||, z a unit embedding, z_(k) the k-th nearest of the training images (Sun et al. 2022).

    Raises:
        ConfigError: fewer training embeddings than k.
    """

    def __init__(self, k: int, reference: Reference) -> None:
        self.k = k
        self.training, _ = reference.training("knn")
        if len(self.training) < k:
            raise ConfigError(f"the score knn has k {k} and {len(self.training)} training images; lower k")

    def __call__(self, seen: Comparison) -> Tensor:
        neighbour = self.training[self._nearest(seen.features.detach().to(self.training.dtype))]
        return -torch.linalg.vector_norm(seen.features - exact(neighbour), dim=1)

    @torch.no_grad()
    def _nearest(self, features: Tensor) -> Tensor:
        """Place (B,) of the k-th nearest training image."""
        columns = max(BLOCK // max(len(features), 1), self.k)
        best = features.new_empty(len(features), 0)
        places = features.new_empty(len(features), 0, dtype=torch.int64)
        for start in range(0, len(self.training), columns):
            block = features @ self.training[start : start + columns].T
            found, where = block.topk(min(self.k, block.shape[1]), dim=1)
            best, places = torch.cat([best, found], 1), torch.cat([places, where + start], 1)
            best, kept = best.topk(min(self.k, best.shape[1]), dim=1)
            places = places.gather(1, kept)
        return places[:, -1]
