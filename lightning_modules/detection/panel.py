"""Scores of a model side by side, and where each of them draws the line."""

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from configs.schema.scores import Score, SDis
from lightning_modules.detection.table import Observed
from lightning_modules.heads import classify
from lightning_modules.open_world import Reference, Scores
from lightning_modules.open_world.immunity import Immunity

ACCEPTED = 0.95  # share of in-distribution validation samples from the threshold upwards


class Panel:
    """Scores that look at each image by itself. S scores, B images, D embedding dimensions, K classes.

    names       of the scores, in order.
    known       score -> its values on clean in-distribution validation samples, float64 (N,); empty until `calibrate`.
    thresholds  score -> the value from which on a sample is accepted, 0-dim. The vaccinated model's own score has
                thresholds of its own.
    """

    def __init__(self, settings: Mapping[str, Score], reference: Reference) -> None:
        self.names = list(settings)
        self.settings, self.reference = dict(settings), reference
        self.scores = Scores(settings, reference)
        self.known: dict[str, Tensor] = {}
        self.thresholds: dict[str, Tensor] = {}

    @torch.no_grad()
    def judge(self, embeddings: Tensor, labels: Tensor, zero_gradient: Tensor | None = None) -> Observed:
        """What is to be known of one image of each sample (I = 1), by its embedding (B, D).

        Args:
            labels: int64 (B,), -1 of OOD samples.
            zero_gradient: float32 (B,), see `Observed`; None: of clean images.
        """
        values, classes = self.scores(embeddings), self.scores.classes(embeddings)
        found, right, accepted = (
            torch.stack(column, 1)[:, None]
            for column in (
                [values[name].double() for name in self.names],
                [classes[name] == labels for name in self.names],
                [self._accept(name, values[name], embeddings) for name in self.names],
            )
        )
        hidden = embeddings.new_zeros(len(embeddings)) if zero_gradient is None else zero_gradient
        return Observed(found, right, accepted, hidden.float()[:, None], self._antibody(embeddings)[:, None])

    def calibrate(self, known: Observed) -> None:
        """Chooses the thresholds on in-distribution samples."""
        self.known = dict(zip(self.names, known.values[:, 0].T, strict=True))
        self.thresholds = {name: threshold(values) for name, values in self.known.items()}

    def logits(self, name: str) -> Callable[[Tensor], Tensor]:
        """What says which class goes with a score: embeddings (B, D) -> (B, K), differentiable."""
        immunity = self._immunity(name)
        if immunity is not None:
            return lambda embeddings: immunity.logits(immunity.adapt(embeddings))
        return lambda embeddings: classify(self.reference.head, embeddings, self.reference.classes)

    def _accept(self, name: str, values: Tensor, embeddings: Tensor) -> Tensor:
        immunity = self._immunity(name)
        if immunity is not None:
            return immunity.accept(embeddings)
        threshold = self.thresholds.get(name)
        return torch.zeros_like(values, dtype=torch.bool) if threshold is None else values >= threshold

    def _antibody(self, embeddings: Tensor) -> Tensor:
        immunity = self.reference.immunity
        if immunity is None:
            return torch.full((len(embeddings),), -1, device=embeddings.device)
        return immunity.most_dangerous(immunity.adapt(embeddings))

    def _immunity(self, name: str) -> Immunity | None:
        return self.reference.immunity if isinstance(self.settings[name], SDis) else None


def threshold(known: Tensor) -> Tensor:
    """The highest value that accepts at least 95 % of in-distribution samples, 0-dim of (N,)."""
    kept = max(math.ceil(ACCEPTED * len(known) - 1e-9), 1)
    return known.sort(descending=True).values[kept - 1]
