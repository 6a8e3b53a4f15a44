"""A hyperbolic head for a model that was trained with cosines."""

import torch
from torch import Tensor

from configs.schema.objective import Hyperbolic
from lightning_modules.backbones import Backbone
from lightning_modules.backbones.text import prompt_embeddings
from lightning_modules.heads import CosineHead, HyperbolicHead


@torch.no_grad()
def fit_head(
    backbone: Backbone, config: Hyperbolic, pixels: Tensor, names: tuple[str, ...], templates: tuple[str, ...]
) -> HyperbolicHead:
    """A head that puts the model's images and texts at the radii of the configuration. Without a scale of its own, the
    logits of an image spread over the classes as much as the model's own, in standard deviations.

    Args:
        pixels: (B, 3, H, W), a sample of training images.
        names: of the classes.
    """
    images = backbone.embed_image(pixels)
    prompts = prompt_embeddings(backbone, names, templates)
    head = HyperbolicHead.fit(
        images,
        prompts,
        curvature=config.curvature,
        image_radius=config.image_radius,
        text_radius=config.text_radius,
        power=config.power,
        logit_scale=config.logit_scale or 1.0,
    ).to(images.device)
    if config.logit_scale is None:
        own = CosineHead(backbone.logit_scale)
        wanted, found = (
            each.logits(each.images(images), each.texts(prompts)).std(dim=1).mean() for each in (own, head)
        )
        head.log_logit_scale.add_((wanted / found).log())
    return head
