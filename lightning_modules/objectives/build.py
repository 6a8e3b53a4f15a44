"""From a configuration to its objective, and to the texts that it compares images with."""

from collections.abc import Sequence

import torch

from configs.schema import objective as schema
from lightning_modules.heads import CosineHead, Head
from lightning_modules.hierarchy import Forest
from lightning_modules.objectives.fare import FARE
from lightning_modules.objectives.hierarchical import Hierarchical
from lightning_modules.objectives.objective import Objective
from lightning_modules.objectives.tecoa import TeCoA

Block = list[list[str]]
"""Prompts of some classes, equally many each."""


def build(config: schema.Objective, head: Head, forest: Forest, device: torch.device) -> Objective:
    """The objective of a configuration.

    Args:
        head: the model's; a scale in the configuration takes the place of its own.
        forest: the class trees; objectives without a hierarchy make no use of them.
    """
    if isinstance(config, schema.Hierarchical):
        return Hierarchical(config, head, forest, device)
    if isinstance(config, schema.FARE):
        return FARE(config.clean_weight)
    return TeCoA(head if config.logit_scale is None else CosineHead(config.logit_scale), config.clean_weight)


def wordings(config: schema.Objective, forest: Forest, templates: Sequence[str]) -> list[Block]:
    """The prompts of an objective's texts, in blocks; the leaves' come first."""
    names = forest.names if isinstance(config, schema.Hierarchical) else forest.leaves
    return [[[template.replace("{c}", name) for template in templates] for name in names]]
