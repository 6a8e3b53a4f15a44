"""From a configuration to its objective, and to the texts that it compares images with."""

from collections.abc import Sequence
from pathlib import Path

import torch

from configs.schema import objective as schema
from lightning_modules.heads import CosineHead, Head
from lightning_modules.hierarchy import Forest
from lightning_modules.hierarchy.class_file import read_class_file
from lightning_modules.objectives.agft import AGFT
from lightning_modules.objectives.fare import FARE
from lightning_modules.objectives.hierarchical import Hierarchical
from lightning_modules.objectives.objective import Objective
from lightning_modules.objectives.pmg_aft import PMGAFT
from lightning_modules.objectives.saft import SAFT
from lightning_modules.objectives.tecoa import TeCoA
from lightning_modules.objectives.tga_zsr import TGAZSR
from lightning_modules.objectives.trades import TRADES

LONGEST_DESCRIPTION = 300  # characters

Block = list[list[str]]
"""Prompts of some classes, equally many each."""


def build(config: schema.Objective, head: Head, forest: Forest, device: torch.device) -> Objective:
    """The objective of a configuration.

    Args:
        head: the model's; a scale in the configuration takes the place of its own.
        forest: the class trees; objectives without a hierarchy make no use of them.
    """
    match config:
        case schema.TeCoA():
            return TeCoA(head if config.logit_scale is None else CosineHead(config.logit_scale), config.clean_weight)
        case schema.FARE():
            return FARE(config.clean_weight)
        case schema.PMGAFT():
            own = head if config.temperature is None else CosineHead(1 / config.temperature)
            return PMGAFT(own, config.reference_weight, config.clean_weight)
        case schema.TGAZSR():
            return TGAZSR(head, config.attention)
        case schema.AGFT():
            return AGFT(head, config.scale, config.softness)
        case schema.SAFT():
            return SAFT(config, head, len(forest.leaves))
        case schema.TRADES():
            return TRADES(head, config.weight)
        case schema.Hierarchical():
            return Hierarchical(config, head, forest, device)


def wordings(config: schema.Objective, forest: Forest, templates: Sequence[str]) -> list[Block]:
    """The prompts of an objective's texts, in blocks; the leaves' come first.

    Raises:
        DataError: a file of descriptions that is not of these classes; see `read_class_file`.
    """
    names = forest.names if isinstance(config, schema.Hierarchical) else forest.leaves
    blocks = [[[template.replace("{c}", name) for template in templates] for name in names]]
    if isinstance(config, schema.SAFT):
        descriptions = read_class_file(
            Path(config.descriptions), forest.leaves, "the file of descriptions", "descriptions", LONGEST_DESCRIPTION
        )
        blocks.append([[description] for each in descriptions.values() for description in each])
    return blocks
