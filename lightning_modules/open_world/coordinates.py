"""Where embeddings are compared: on the unit sphere as they are, or after whitening within classes."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_modules.open_world.prototypes import ClassSums

SHRINKAGE = 1e-3  # of the covariance, towards a multiple of the identity: few shots leave directions without variance
TINY = 1e-9  # a variance that unit vectors in float32 do not tell from none


@dataclass(frozen=True, eq=False)
class Coordinates:
    """A linear map of unit embeddings, and what lies between texts and images before it (ours).

    The embeddings of an adversarially trained model vary along few directions, so that all cosines between them are
    large and say little; divided by a power of their covariance within classes they are told apart again.

    basis  float32 (D, D); points are rows.
    gap    float32 (D,): mean image less mean class text (Liang et al. 2022, "Mind the Gap").
    """

    basis: Tensor
    gap: Tensor

    def images(self, embeddings: Tensor) -> Tensor:
        """Unit vectors float32 (B, D) of embeddings (B, D)."""
        return F.normalize(F.normalize(embeddings.float(), dim=-1) @ self.basis, dim=-1)

    def transplanted(self, texts: Tensor) -> Tensor:
        """Where images of what texts say would be: unit vectors float32 (N, D) of their embeddings (N, D)."""
        return self.images(F.normalize(texts.float(), dim=-1) + self.gap)


def coordinates(sums: ClassSums, moment: Tensor, texts: Tensor, power: float) -> Coordinates:
    """S^(-power / 2), S being the covariance within classes, and the gap.

    Args:
        sums: of the unit embeddings of images.
        moment: float64 (D, D), the sum of z z^T over the same.
        texts: unit vectors (K, D), of the classes.
        power: 0 leaves embeddings as they are, 1 makes classes round.
    """
    images, means = sums.counts.sum(), sums.totals / sums.counts[:, None]
    gap = sums.totals.sum(dim=0) / images - texts.double().mean(dim=0)
    identity = torch.eye(len(moment), dtype=moment.dtype)
    if not power:
        return Coordinates(identity.float(), gap.float())
    within = (moment - means.T @ sums.totals) / images
    ridge = (SHRINKAGE * within.trace() / len(within)).clamp_min(TINY)
    values, vectors = torch.linalg.eigh(within + ridge * identity)
    values = values.clamp_min(ridge)
    basis = (vectors * values ** (-power / 2)) @ vectors.T
    return Coordinates((basis / basis.trace() * len(basis)).float(), gap.float())
