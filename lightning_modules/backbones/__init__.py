"""open_clip in, open_clip out: load a CLIP, embed pixels and captions, export it."""

from lightning_modules.backbones.backbone import Backbone
from lightning_modules.backbones.export import export
from lightning_modules.backbones.freezing import freeze, frozen, reference_copy
from lightning_modules.backbones.load import load_backbone
from lightning_modules.backbones.text import class_features, prompt_embeddings

__all__ = [
    "Backbone",
    "class_features",
    "export",
    "freeze",
    "frozen",
    "load_backbone",
    "prompt_embeddings",
    "reference_copy",
]
