"""A CLIP model as a classifier, and a memory of what it said to clean images."""

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_modules.attacks import ModelFn
from lightning_modules.backbones import Backbone, class_features
from lightning_modules.backbones.quick import Compilation, quick_embedding

MEMORY = 2**31  # bytes of host memory for clean answers


class ZeroShot:
    """Compares images with class texts, which are encoded once.

    Shapes: B images, K classes. All outputs are float32, and so is the computation, whatever precision surrounds it,
    but for a `quick` model.
    """

    def __init__(self, backbone: Backbone, class_names: Sequence[str], templates: Sequence[str]) -> None:
        self.backbone = backbone
        self.features = class_features(backbone, class_names, templates)

    @property
    def scale(self) -> Tensor:
        """The factor of similarities in logits, 0-dim."""
        return torch.as_tensor(self.backbone.head.scale).detach().float()

    def similarities(self, pixels: Tensor) -> Tensor:
        """Cosines (B, K) of images (B, 3, H, W) and class texts; under a hyperbolic head, distances with a minus."""
        with torch.autocast(pixels.device.type, enabled=False):
            return self._compare(self.backbone.embed_image(pixels))

    def logits(self, pixels: Tensor) -> Tensor:
        """Logits (B, K)."""
        return self.scale * self.similarities(pixels)

    def quick(self, bfloat16: bool, compilation: Compilation) -> ModelFn:
        """The same logits at less cost, see `quick_embedding`."""
        embed = quick_embedding(self.backbone, bfloat16, compilation)
        return lambda pixels: self.scale * self._compare(embed(pixels))

    @torch.no_grad()
    def predict(self, pixels: Tensor) -> Tensor:
        """Classes, see `best`."""
        return best(self.similarities(pixels))

    def _compare(self, embeddings: Tensor) -> Tensor:
        head = self.backbone.head
        return head.similarities(head.images(embeddings), self.features)


def best(outputs: Tensor) -> Tensor:
    """The class of the largest output, int64 (B,) of (B, K); -1 where an output is not a number."""
    return outputs.argmax(dim=1).masked_fill(outputs.isnan().any(dim=1), -1)


class CleanSimilarities:
    """Similarities of clean images, computed once for all probes of a split, as far as `limit` bytes of the host
    reach."""

    def __init__(self, classifier: ZeroShot, limit: int = MEMORY) -> None:
        self.classifier = classifier
        self.limit = limit
        self._rows: dict[tuple[str, int], Tensor] = {}

    @torch.no_grad()
    def __call__(self, split: str, index: Tensor, pixels: Tensor) -> Tensor:
        """Similarities (B, K) of the images (B, 3, H, W) at positions `index` (B,) of a split."""
        keys = [(split, number) for number in index.tolist()]
        if all(key in self._rows for key in keys):
            return torch.stack([self._rows[key] for key in keys]).to(pixels.device)
        found = self.classifier.similarities(pixels)
        if (len(self._rows) + len(keys)) * found[0].nbytes <= self.limit:
            self._rows |= dict(zip(keys, found.cpu(), strict=True))
        return found
