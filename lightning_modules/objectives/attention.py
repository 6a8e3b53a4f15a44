"""Where in a picture its class is, by the texts of the class."""

from math import isqrt

import torch
import torch.nn.functional as F
from torch import Tensor

from configs.schema.objective import Attention as Config
from lightning_modules.objectives.objective import Embedded, Needs, Parts, Views

NEEDS = Needs(clean=True, reference=True, tokens=True)  # of `shifts`


def attention(images: Embedded, texts: Tensor, config: Config) -> Tensor:
    """Text-guided attention (Yu et al. 2024): products of image tokens and class texts, averaged over
    the texts of a class, from 0 to 1 within a picture, and enlarged.

    Args:
        images: with their tokens, of a square.
        texts: (B, M, D), M texts of each image's class.

    Returns:
        float32 (B, map_size ** 2).
    """
    assert images.tokens is not None
    with torch.autocast(texts.device.type, enabled=False):
        tokens = _normalised(images.pooled.float(), images.tokens.float(), config)
        products = (tokens @ texts.float().mean(1)[:, :, None]).squeeze(2)
    low, high = products.aminmax(dim=1, keepdim=True)
    span = high - low
    shares = (products - low) / span.where(span > 0, 1)  # of equal products: all 0
    side = isqrt(shares.shape[1])
    maps = shares.view(-1, 1, side, side)
    return F.interpolate(maps, (config.map_size, config.map_size), mode="bilinear").flatten(1)


def _normalised(pooled: Tensor, tokens: Tensor, config: Config) -> Tensor:
    if config.normalise == "features":
        return F.normalize(tokens, dim=2)
    return F.normalize(torch.cat([pooled[:, None], tokens], dim=1), dim=1)[:, 1:]


def shifts(views: Views, texts: Tensor, config: Config) -> Parts:
    """The weighted mean lengths of what moves attention away from the original model's on the clean images: by the
    adversary, and by training. A length that is 0 has the gradient 0. Arguments as of `attention`."""
    assert views.reference is not None
    assert views.clean is not None
    original = attention(views.reference, texts, config)
    branches = {"adversarial": views.adversarial, "clean": views.clean}
    weights = {"adversarial": config.adversarial_weight, "clean": config.clean_weight}
    return {
        f"attention_{name}": weights[name] * (attention(images, texts, config) - original).norm(dim=1).mean()
        for name, images in branches.items()
    }
