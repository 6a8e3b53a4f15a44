"""Class names to the weights of a zero-shot classifier."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from configs.errors import ConfigError
from lightning_modules.backbones.backbone import Backbone
from lightning_modules.backbones.freezing import eval_mode


@torch.no_grad()
def class_features(backbone: Backbone, class_names: Sequence[str], templates: Sequence[str]) -> Tensor:
    """One text feature per class: the mean of its prompts' unit embeddings, scaled to unit length.

    Prompt ensembling as of Radford et al. 2021, section 3.1.4. The text tower runs once over all prompts, in eval mode.

    Args:
        class_names: N names.
        templates: T prompts with `{c}` where the name goes.

    Returns:
        (N, D), unit norm, on the backbone's device, without a gradient.

    Raises:
        ConfigError: no template, or one without `{c}`.
    """
    for template in templates:
        if "{c}" not in template:
            raise ConfigError(
                f"the template {template!r} has no {{c}} for the class name; write it as 'a photo of a {{c}}'"
            )
    if not templates or not class_names:
        raise ConfigError("text features need at least one class name and one template")
    prompts = [template.replace("{c}", name) for name in class_names for template in templates]
    with eval_mode(backbone):
        embeddings = F.normalize(backbone.embed_text(prompts), dim=-1)
    return F.normalize(embeddings.view(len(class_names), len(templates), -1).mean(dim=1), dim=-1)
