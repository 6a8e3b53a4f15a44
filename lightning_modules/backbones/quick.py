"""An image tower at less cost, for an adversary that asks often."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from lightning_modules.backbones.backbone import Backbone

Compilation = Literal["none", "default", "cuda_graphs"]


def quick_embedding(backbone: Backbone, bfloat16: bool, compilation: Compilation) -> Callable[[Tensor], Tensor]:
    """Pixels (B, 3, H, W) -> embeddings (B, D), at least fp32.

    Args:
        bfloat16: computes in bfloat16 where autocast does.
        compilation: whether torch.compile takes the tower, and whether a GPU then replays it as one graph, which pays
            where kernels are so small that launching them takes as long as they do.
    """
    embed_image: Callable[[Tensor], Tensor] = backbone.embed_image
    if compilation != "none":
        embed_image = torch.compile(embed_image, mode="reduce-overhead" if compilation == "cuda_graphs" else None)

    def embed(pixels: Tensor) -> Tensor:
        with torch.autocast(pixels.device.type, torch.bfloat16, enabled=bfloat16):
            embeddings = embed_image(pixels)
        return embeddings.clone() if compilation == "cuda_graphs" else embeddings  # the next replay writes over it

    return embed
