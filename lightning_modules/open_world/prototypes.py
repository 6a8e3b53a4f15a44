"""Text-regularised von Mises-Fisher prototypes: one direction per class, and how concentrated its images are."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from configs.errors import DataError
from configs.schema.vaccination import ConstrainedPrototypes, MixedPrototypes, TextPrototypes
from configs.schema.vaccination import Prototypes as PrototypesConfig
from lightning_modules import ranks
from lightning_modules.open_world.vmf import concentration


class ClassSums:
    """Sums of unit vectors per class, in float64, added up batch by batch and over ranks.

    totals  (K, D).
    counts  int64 (K,).
    """

    def __init__(self, classes: int, dimension: int, device: torch.device | None = None) -> None:
        self.totals = torch.zeros(classes, dimension, dtype=torch.float64, device=device)
        self.counts = torch.zeros(classes, dtype=torch.int64, device=device)

    def add(self, embeddings: Tensor, labels: Tensor) -> None:
        """Normalises embeddings (B, D), and adds each to its class."""
        self.totals.index_add_(0, labels, F.normalize(embeddings.double(), dim=-1))
        self.counts += torch.bincount(labels, minlength=len(self.counts))

    def reduce(self) -> None:
        """Adds up all ranks, each of which has added samples of its own."""
        ranks.summed(self.totals)
        ranks.summed(self.counts)


@dataclass(frozen=True, eq=False)
class Prototypes:
    """Von Mises-Fisher distributions of K classes.

    directions  mu, float32 (K, D), unit length.
    kappa       float64 (K,), each class's own.
    shared      kappa over all classes.
    """

    directions: Tensor
    kappa: Tensor
    shared: float


def build(config: PrototypesConfig, sums: ClassSums, texts: Tensor, class_names: Sequence[str]) -> Prototypes:
    """Prototypes of images and texts. kappa is Banerjee's estimate with R = the mean of mu^T z, the maximum-likelihood
    equation of kappa where mu is given; for a visual prototype that is the length of the mean.

    Args:
        sums: of the images, over all ranks.
        texts: (K, D).

    Raises:
        DataError: a class without an image, or whose images or prototype cancel out.
    """
    absent = [name for name, count in zip(class_names, sums.counts.tolist(), strict=True) if not count]
    if absent:
        raise DataError(
            f"{len(absent)} of {len(class_names)} classes have no training image to make a prototype of, such as "
            f"{absent[0]!r}; add some, or remove the class"
        )
    means = sums.totals / sums.counts[:, None]
    directions = F.normalize(_directions(config, _unit(means, class_names), _unit(texts, class_names)), dim=-1)
    directions = _unit(directions, class_names)
    lengths = (directions * means).sum(dim=1)
    overall = (lengths * sums.counts).sum() / sums.counts.sum()
    dimension = means.shape[1]
    return Prototypes(directions.float(), concentration(lengths, dimension), float(concentration(overall, dimension)))


def constrained(images: Tensor, texts: Tensor, angle: float) -> Tensor:
    """argmax mu^T image subject to arccos(mu^T text) <= xi, for each class: the image itself where it is within xi of
    the text, and otherwise [sin(xi) image + sin(theta - xi) text] / sin(theta), theta being the angle between the two
    (the paper's alpha, solved for xi: ours).

    Args:
        images, texts: unit float64 (K, D).
        angle: xi, in radians.
    """
    # arccos loses half of the digits where the two nearly agree.
    theta = 2 * torch.atan2((images - texts).norm(dim=1), (images + texts).norm(dim=1))[:, None]
    turned = math.sin(angle) * images + (theta - angle).sin() * texts
    return torch.where(theta <= angle, images, F.normalize(turned, dim=1))


def mixed(images: Tensor, texts: Tensor, alpha: float) -> Tensor:
    """(1 - alpha) image + alpha text, at unit length; one alpha for all classes. Of unit vectors (K, D): the paper does
    not say whether the mean image is normalised first, and unless it is, alpha means less for compact classes."""
    return F.normalize((1 - alpha) * images + alpha * texts, dim=1)


def _directions(config: PrototypesConfig, images: Tensor, texts: Tensor) -> Tensor:
    if isinstance(config, ConstrainedPrototypes):
        return constrained(images, texts, math.radians(config.angle))
    if isinstance(config, MixedPrototypes):
        return mixed(images, texts, config.alpha)
    return texts if isinstance(config, TextPrototypes) else images


def _unit(vectors: Tensor, class_names: Sequence[str]) -> Tensor:
    vectors = vectors.double()
    lengths = vectors.norm(dim=1, keepdim=True)
    bad = (~(lengths > 1e-9)).flatten().nonzero().flatten().tolist()
    if bad:
        raise DataError(
            f"the embeddings of class {class_names[bad[0]]!r} have no mean direction (they cancel out, or are not "
            "finite); check its images and the model"
        )
    return vectors / lengths
