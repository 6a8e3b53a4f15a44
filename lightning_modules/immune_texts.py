"""Banks of antibodies as a model has them: built, encoded, selected."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from configs.schema.antibodies import BankConfig, RandomBank
from lightning_modules.antibodies import Bank, Selection, build, points, select
from lightning_modules.backbones import Backbone, prompt_embeddings
from lightning_modules.heads import CosineHead
from lightning_modules.open_world import Negatives

UNIT = CosineHead(1.0)


@dataclass(frozen=True, eq=False)
class ImmuneTexts:
    """N antibodies that selection left.

    bank       their texts.
    features   float32 (N, D), unit vectors, whatever the model's head.
    negatives  the same as the model's head has them.
    selection  of the whole bank; None where nothing is ever dropped.
    """

    bank: Bank
    features: Tensor
    negatives: Negatives
    selection: Selection | None = None

    def without(self, mask: Tensor) -> "ImmuneTexts":
        """What is left without the antibodies where `mask`, bool (N,), is true; at least one must be."""
        kept = ~mask.to(self.features.device)
        negatives = Negatives(self.negatives.points[kept], self.negatives.owners[kept])
        return ImmuneTexts(self.bank.without(mask), self.features[kept], negatives, self.selection)


@torch.no_grad()
def immune_texts(
    backbone: Backbone,
    source: BankConfig,
    name: str,
    class_names: Sequence[str],
    templates: Sequence[str],
    prototypes: Tensor,
) -> ImmuneTexts:
    """The bank `name` over the classes, each text encoded once, on the backbone's device.

    Args:
        templates: of antibodies whose source has none: the classes'.
        prototypes: float32 (K, D), unit vectors of the classes, that antibodies are selected by.

    Raises:
        DataError, ConfigError: see `build` and `select`.
    """
    bank = build(source, class_names, name)
    places: list[Tensor] = []

    def encode(captions: Sequence[str]) -> Tensor:
        prompts = prompt_embeddings(backbone, captions, source.templates or templates)
        places.append(backbone.head.texts(prompts))
        return UNIT.texts(prompts)

    features = points(source, bank, encode, prototypes.shape[1]).to(prototypes)
    placed = torch.cat(places) if places else backbone.head.texts(features[:, None])
    owners = torch.tensor(bank.owners, device=features.device)
    texts = ImmuneTexts(bank, features, Negatives(placed, owners))
    if isinstance(source, RandomBank):
        return texts
    selection = select(bank, features, prototypes, source.selection)
    chosen = texts.without(~selection.kept)
    return ImmuneTexts(chosen.bank, chosen.features, chosen.negatives, selection)
