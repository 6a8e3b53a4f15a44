"""A CLIP model as the rest of the project sees it: pixels and captions in, embeddings out."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from configs.errors import ConfigError
from lightning_modules.backbones.tokenizer import Tokenizer
from lightning_modules.heads import CosineHead, Head, HyperbolicHead
from lightning_modules.open_world.immunity import Immunity


class Backbone(nn.Module):
    """An open_clip image-text model with its preprocessing inside.

    Shapes: B images, N captions, D embedding dimensions.

    clip          open_clip's model; trained in place.
    architecture  its `model_cfg`, which `open_clip` rebuilds it from.
    preprocess    its `preprocess_cfg`: mean and std of the pixels, and the size.
    tokenizer     captions -> token ids.
    merges        the byte-pair merges of a vocabulary of its own, or None for CLIP's.
    hyperbolic    a head that it was trained with, or None: it compares by cosines.
    immunity      what it was vaccinated with, or None.
    """

    mean: Tensor
    std: Tensor
    hyperbolic: HyperbolicHead | None
    immunity: Immunity | None

    def __init__(
        self,
        clip: nn.Module,
        architecture: dict[str, Any],
        preprocess: dict[str, Any],
        tokenizer: Tokenizer,
        merges: Path | None = None,
    ) -> None:
        super().__init__()
        self.clip = clip
        self.architecture = architecture
        self.preprocess = preprocess
        self.tokenizer = tokenizer
        self.merges = merges
        self.hyperbolic = None
        self.immunity = None
        self.image_size = _square(preprocess["size"])
        for name in ("mean", "std"):
            values = torch.tensor(preprocess[name], dtype=torch.float32).view(1, 3, 1, 1)
            self.register_buffer(name, values, persistent=False)

    @property
    def visual(self) -> nn.Module:
        """The image tower, from normalised pixels (B, 3, size, size) to embeddings (B, D)."""
        return self.clip.get_submodule("visual")

    @property
    def head(self) -> Head:
        """What compares images with class texts."""
        return CosineHead(self.logit_scale) if self.hyperbolic is None else self.hyperbolic

    @property
    def logit_scale(self) -> Tensor:
        """The factor of cosines in logits: 1 / temperature, 0-dim."""
        return self.clip.get_parameter("logit_scale").exp().squeeze()

    def clamp_logit_scale(self, maximum: float = 100.0) -> None:
        """Keeps the logit scale within [1, maximum], in place, as CLIP's training does (Radford et al. 2021, 2.5)."""
        with torch.no_grad():
            self.clip.get_parameter("logit_scale").clamp_(0, math.log(maximum))

    def channels_last(self) -> "Backbone":
        """Lays out the image tower's kernels for the channels-last convolutions, in place; returns the backbone.

        On CPUs a training step of a small ResNet takes 0.8 of the time (measured; 2 cores, batch 128, fp32). Sums are
        then in another order, so that embeddings differ from open_clip's own layout in the last bits.
        """
        visual: Any = self.visual
        visual.to(memory_format=torch.channels_last)
        return self

    def normalise(self, pixels: Tensor) -> Tensor:
        """Pixels (B, 3, H, W) in [0, 1] -> the image tower's input (B, 3, size, size).

        Differentiable; resizes (bicubic, antialiased) only where the size differs.
        """
        if not pixels.is_floating_point():
            raise TypeError(f"pixels must be floating point in [0, 1], got {pixels.dtype}")
        if pixels.shape[-2:] != (self.image_size, self.image_size):
            size = (self.image_size, self.image_size)
            pixels = F.interpolate(pixels, size, mode="bicubic", antialias=True, align_corners=False)
        return (pixels - self.mean) / self.std

    def embed_image(self, pixels: Tensor) -> Tensor:
        """Embeddings (B, D) of pixels (B, 3, H, W) in [0, 1]; not normalised, at least fp32."""
        return embed(self.visual, self.normalise(pixels))

    def embed_text(self, texts: Sequence[str], chunk: int = 512) -> Tensor:
        """Embeddings (N, D) of N captions, `chunk` of them at a time; not normalised, at least fp32."""
        tokens = self.tokenizer(texts).to(self.mean.device)
        encode: Any = self.clip.encode_text
        return _at_least_float32(torch.cat([encode(part) for part in torch.split(tokens, chunk)]))

    def forward(self, pixels: Tensor) -> Tensor:
        """The same as `embed_image`."""
        return self.embed_image(pixels)


def embed(visual: nn.Module, inputs: Tensor) -> Tensor:
    """An image tower's embeddings (B, D), at least fp32, of normalised pixels (B, 3, size, size)."""
    return _at_least_float32(visual(inputs.to(next(visual.parameters()).dtype)))


def _at_least_float32(features: Tensor) -> Tensor:
    return features.to(torch.promote_types(features.dtype, torch.float32))


def _square(size: int | Sequence[int]) -> int:
    height, width = (size, size) if isinstance(size, int) else size
    if height != width:
        raise ConfigError(f"the model takes pictures of {height} x {width}; choose one with square input")
    return height
