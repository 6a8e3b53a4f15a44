"""Objectives of robust fine-tuning: pure losses of embeddings, one file each."""

from torch import Tensor

from configs.schema.module import Objective as ObjectiveConfig
from configs.schema.module import TeCoA as TeCoAConfig
from lightning_modules.objectives.fare import FARE
from lightning_modules.objectives.objective import Objective
from lightning_modules.objectives.tecoa import TeCoA

__all__ = ["FARE", "Objective", "TeCoA", "build"]


def build(config: ObjectiveConfig, text_features: Tensor | None, logit_scale: Tensor | float) -> Objective:
    """The objective of a configuration.

    Args:
        text_features: (N, D), unit norm, on the device of the embeddings; only objectives without text do without.
        logit_scale: the model's own; a scale in the configuration takes its place.
    """
    if not isinstance(config, TeCoAConfig):
        return FARE(config.clean_weight)
    if text_features is None:
        raise ValueError("TeCoA compares images with class texts, and no text features were given")
    scale = logit_scale if config.logit_scale is None else config.logit_scale
    scale = scale.detach() if isinstance(scale, Tensor) else scale
    return TeCoA(text_features.detach(), scale, config.clean_weight)
