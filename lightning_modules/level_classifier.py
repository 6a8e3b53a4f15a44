"""A CLIP model as one classifier for each level of a forest."""

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_modules.attacks import ModelFn
from lightning_modules.backbones import Backbone, class_features
from lightning_modules.backbones.quick import Compilation, quick_embedding
from lightning_modules.heads import classify
from lightning_modules.hierarchy import Forest, Level
from lightning_modules.zero_shot import best


class LevelClassifier:
    """Compares images with the texts of all classes of a forest, which are encoded once, by the model's own head.

    Shapes: B images, N nodes of the forest, M levels. All outputs are float32.
    """

    def __init__(
        self, backbone: Backbone, forest: Forest, templates: Sequence[str], compilation: Compilation = "none"
    ) -> None:
        """
        Args:
            compilation: of the image tower that `logits_at` asks, see `quick_embedding`.
        """
        self.backbone, self.head, self.forest = backbone, backbone.head, forest
        self._embed = {fast: quick_embedding(backbone, fast, compilation) for fast in (False, True)}
        self.texts = class_features(backbone, forest.names, templates)

    def logits_at(self, level: Level, bfloat16: bool = False) -> ModelFn:
        """Pixels (B, 3, H, W) -> logits of the level's classes, float32; see `quick_embedding`."""
        texts, embed = self.texts[level.nodes], self._embed[bfloat16]
        return lambda pixels: classify(self.head, embed(pixels), texts)

    def depths(self) -> list[Tensor]:
        """Per level, the norms of its texts as a share of the ball's radius; empty where the head has no depth."""
        head = self.backbone.hyperbolic
        if head is None:
            return []
        shares = head.shares(self.texts)
        return [shares[level.nodes] for level in self.forest.levels]

    @torch.no_grad()
    def predict(self, pixels: Tensor) -> Tensor:
        """Classes by prompt at every level, int64 (M, B), from one forward pass; -1 where an output is not a number."""
        with torch.autocast(pixels.device.type, enabled=False):
            logits = classify(self.head, self.backbone.embed_image(pixels), self.texts)
        return torch.stack([best(logits[:, level.nodes]) for level in self.forest.levels])
