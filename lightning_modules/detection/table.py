"""What open-world scores said to each sample of a split, and to what adversaries made of it."""

from collections.abc import Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat


class Observed(NamedTuple):
    """N samples in the order of the split, I images of each, the first of them clean; S scores.

    values         float64 (N, I, S): higher = more in-distribution.
    right          bool (N, I, S): whether the class that goes with the score is the label; False on OOD samples.
    accepted       bool (N, I, S): whether the image is taken for in-distribution at the chosen threshold.
    zero_gradient  float32 (N, I): see `Adversarial`; 0 of the clean image.
    antibody       int64 (N, I): the place of the antibody that s- is of, see `Immunity`; -1 without antibodies.
    """

    values: Tensor
    right: Tensor
    accepted: Tensor
    zero_gradient: Tensor
    antibody: Tensor


class Samples(NamedTuple):
    """What one score says to N samples, each as the image that an adversary likes best.

    values    float64 (N,).
    right     bool (N,): whether the class is right on all images.
    accepted  bool (N,): of an OOD sample whether any image is, of others whether all are; None without a threshold.
    """

    values: Tensor
    right: Tensor
    accepted: Tensor | None


def worst(observed: Observed, score: int, images: Sequence[int], outside: bool) -> Samples:
    """The highest score among some images of an OOD sample, the lowest of another; an image whose score is not a number
    is what the adversary likes best of all."""
    chosen = list(images)
    found = observed.values[:, chosen, score]
    found = found.masked_fill(found.isnan(), torch.inf if outside else -torch.inf)
    accepted = observed.accepted[:, chosen, score]
    return Samples(
        found.amax(1) if outside else found.amin(1),
        observed.right[:, chosen, score].all(1),
        accepted.any(1) if outside else accepted.all(1),
    )


class Embedded(NamedTuple):
    """N samples in the order of the split: embeddings (N, D), labels int64 (N,), -1 of OOD samples."""

    embeddings: Tensor
    labels: Tensor


T = TypeVar("T", Observed, Embedded)


class Table(Metric, Generic[T]):
    """Collects one kind of these, over batches and ranks, in the order of the split."""

    full_state_update = False

    def __init__(self, kind: type[T], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.kind: type[T] = kind
        for name in ("index", *kind.__annotations__):
            self.add_state(name, default=[], dist_reduce_fx="cat")

    def update(self, index: Tensor, rows: T) -> None:
        """Positions int64 (B,) in the split, -1 for padding, which is dropped, and these samples."""
        for name, column in {"index": index, **rows._asdict()}.items():
            getattr(self, name).append(column[index >= 0])

    def compute(self) -> T:
        order = dim_zero_cat(self.index).argsort()  # type: ignore[arg-type]
        return self.kind(*(dim_zero_cat(getattr(self, name))[order] for name in self.kind._fields))
