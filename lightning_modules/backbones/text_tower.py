"""A text tower in two parts: its projection, which may be trained, and what lies below, which is not."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from configs.errors import ConfigError
from lightning_modules.backbones.backbone import Backbone
from lightning_modules.backbones.freezing import eval_mode, frozen


class TextTower:
    """open_clip's text transformer, within a CLIP or beside its image tower.

    Shapes: P prompts, L tokens, W the tower's width, D embedding dimensions.

    Raises:
        ConfigError: the text tower is another library's, or has no projection.
    """

    def __init__(self, backbone: Backbone) -> None:
        clip: Any = backbone.clip
        tower: Any = getattr(clip, "text", clip)
        if not hasattr(tower, "token_embedding") or getattr(tower, "text_projection", None) is None:
            raise ConfigError(
                f"the text tower of this model ({type(tower).__name__}) has no projection that could be trained; set "
                "module.objective.train_text=false and text_attack=null, or choose one of open_clip's own text towers"
            )
        self._backbone, self._tower, self._encode = backbone, tower, clip.encode_text

    @property
    def projection(self) -> nn.Parameter | nn.Linear:
        """What takes pooled features (P, W) to embeddings (P, D)."""
        found: nn.Parameter | nn.Linear = self._tower.text_projection
        return found

    def project(self, pooled: Tensor) -> Tensor:
        """Embeddings (P, D) of pooled features (P, W), at least float32, not normalised."""
        with torch.autocast(pooled.device.type, enabled=False):
            if isinstance(self.projection, nn.Linear):
                return self.projection(pooled.to(self.projection.weight.dtype)).float()
            return (pooled.to(self.projection.dtype) @ self.projection).float()

    def pooled(self, tokens: Tensor, shift: Tensor | None = None) -> Tensor:
        """Features below the projection, float32 (P, W), of token ids int64 (P, L).

        Args:
            shift: (P, L, W), added to the tokens' embeddings.
        """
        # `frozen` lets attention's in-projection require a gradient, which is the fast path for that of the shift.
        quiet, fast = eval_mode(self._backbone), frozen(self._tower.transformer)
        with quiet, fast, self._without_projection(), self._shifted(shift):
            features: Tensor = self._encode(tokens)
        return features.float()

    @contextmanager
    def _without_projection(self) -> Iterator[None]:
        kept = self._tower.text_projection
        self._tower.text_projection = None
        try:
            yield
        finally:
            self._tower.text_projection = kept

    @contextmanager
    def _shifted(self, shift: Tensor | None) -> Iterator[None]:
        if shift is None:
            yield
            return
        hook = self._tower.token_embedding.register_forward_hook(lambda _module, _tokens, embedded: embedded + shift)
        try:
            yield
        finally:
            hook.remove()
