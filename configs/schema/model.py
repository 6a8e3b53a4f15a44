"""The backbone: which CLIP, with which weights."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ModelConfig:
    """An open_clip model.

    name        `mini` (the model that the project ships), an open_clip architecture (`ViT-B-32`),
                `hf-hub:org/repo`, or `local-dir:folder`.
    pretrained  open_clip's tag for an architecture (`openai`). `none` starts from random weights. Where the name brings
                its own weights (mini, hf-hub, local-dir) leave it null.
    checkpoint  a file whose weights replace the model's: safetensors, or a state dict; whole model or visual tower.
    """

    name: str = "mini"
    pretrained: str | None = None
    checkpoint: str | None = None
