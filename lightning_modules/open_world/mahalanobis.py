"""Distance to the classes under a shared covariance."""

import torch
from torch import Tensor

from lightning_modules.open_world.moments import class_means, second_moment
from lightning_modules.open_world.reference import Reference
from lightning_modules.open_world.score import Comparison, Score


class Mahalanobis(Score):
    """max over classes of -(z - mean)^T S^+ (z - mean), z a unit embedding, S the covariance of training embeddings
    around the means of their classes (Lee et al. 2018); S^+ is its pseudo-inverse, as with fewer images
    than dimensions there is no inverse."""

    def __init__(self, reference: Reference) -> None:
        features, labels = reference.training("mahalanobis")
        means, places = class_means(features, labels)
        within = second_moment(features) - means.T @ (means * places.bincount()[:, None]) / len(features)
        values, vectors = torch.linalg.eigh(within)
        kept = values > values[-1] * len(values) * torch.finfo(values.dtype).eps
        self.whitening = vectors[:, kept] * values[kept].rsqrt()
        self.means = means @ self.whitening

    def __call__(self, seen: Comparison) -> Tensor:
        white = seen.features @ self.whitening
        squares = white.square().sum(1, keepdim=True) + self.means.square().sum(1)
        return (2 * white @ self.means.T - squares).amax(1)
