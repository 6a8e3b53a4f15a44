"""Class names to the texts of a zero-shot classifier."""

from collections.abc import Sequence

import torch
from torch import Tensor

from configs.errors import ConfigError
from lightning_modules.backbones.backbone import Backbone
from lightning_modules.backbones.freezing import eval_mode


def class_features(backbone: Backbone, class_names: Sequence[str], templates: Sequence[str]) -> Tensor:
    """One point per class, as the model's head has it; see `Head.texts`. Arguments and errors as for
    `prompt_embeddings`.

    Returns:
        float32 (N, D), on the backbone's device, without a gradient.
    """
    return backbone.head.texts(prompt_embeddings(backbone, class_names, templates)).detach()


@torch.no_grad()
def prompt_embeddings(backbone: Backbone, class_names: Sequence[str], templates: Sequence[str]) -> Tensor:
    """Each class in each template, through the text tower: once over all prompts, in eval mode.

    Args:
        class_names: N names.
        templates: T prompts with `{c}` where the name goes.

    Returns:
        (N, T, D), not normalised, on the backbone's device, without a gradient.

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
        return backbone.embed_text(prompts).view(len(class_names), len(templates), -1)
