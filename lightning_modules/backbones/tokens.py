"""What an image tower sees in each part of a picture, in the space of its embeddings."""

from math import prod
from typing import Any

import torch
from open_clip.timm_model import TimmModel
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn

from configs.errors import ConfigError


def embed_tokens(visual: nn.Module, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """An image tower's embeddings (B, D) and tokens (B, L, D), at least fp32, of normalised pixels (B, 3, size, size).

    One pass gives both, and the embeddings are those of `embed`. Tokens take the way that the embedding takes from the
    last layer on: a transformer's patches through its norm and projection, each place of a convolutional map through
    the head as though it were the whole map. They are in reading order, L = side * side.

    Raises:
        ConfigError: a tower without such tokens.
    """
    inputs = inputs.to(next(visual.parameters()).dtype)
    if isinstance(visual, VisionTransformer) and visual.attn_pool is None and not visual.final_ln_after_pool:
        embeddings, tokens = _of_transformer(visual, inputs)
    elif isinstance(visual, TimmModel):
        embeddings, tokens = _of_map(visual, inputs)
    else:
        raise _without_tokens(visual)
    wide = torch.promote_types(embeddings.dtype, torch.float32)
    return embeddings.to(wide), tokens.to(wide)


def _of_transformer(visual: Any, inputs: Tensor) -> tuple[Tensor, Tensor]:
    kept, visual.output_tokens = visual.output_tokens, True
    try:
        embeddings, tokens = visual(inputs)
    finally:
        visual.output_tokens = kept
    return embeddings, tokens if visual.proj is None else tokens @ visual.proj


def _of_map(visual: Any, inputs: Tensor) -> tuple[Tensor, Tensor]:
    features = visual.trunk.forward_features(inputs)
    if features.ndim != 4 or features.shape[1] != visual.trunk.num_features or hasattr(visual.head, "pool"):
        raise _without_tokens(visual)
    count, width, *sides = features.shape
    places = features.permute(0, 2, 3, 1).reshape(-1, width, 1, 1)
    embeddings, tokens = (visual.head(visual.trunk.forward_head(part)) for part in (features, places))
    return embeddings, tokens.view(count, prod(sides), -1)


def _without_tokens(visual: nn.Module) -> ConfigError:
    return ConfigError(
        f"the image tower of this model ({type(visual).__name__}) gives no tokens in the space of its embeddings, "
        "which the objective compares with texts; choose a ViT of open_clip or a convolutional network of timm, or "
        "another objective"
    )
