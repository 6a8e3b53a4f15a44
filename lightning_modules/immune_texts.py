"""Banks of antibodies as a model has them: built, encoded, selected."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from configs.schema.antibodies import BankConfig, RandomBank
from lightning_modules.antibodies import Bank, Selection, points, select
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
def encoded(
    backbone: Backbone,
    source: BankConfig,
    bank: Bank,
    templates: Sequence[str],
    like: Tensor,
    progress: Callable[[int], object] = lambda _: None,
) -> ImmuneTexts:
    """A whole bank, each text encoded once.

    Args:
        bank: what `build` made of the source.
        templates: of antibodies whose source has none: the classes'.
        like: has D columns, and the device of the features.
        progress: is told how many more texts have been encoded.
    """
    places: list[Tensor] = []

    def encode(captions: Sequence[str]) -> Tensor:
        prompts = prompt_embeddings(backbone, captions, source.templates or templates)
        places.append(backbone.head.texts(prompts))
        progress(len(captions))
        return UNIT.texts(prompts)

    features = points(source, bank, encode, like.shape[1]).to(like)
    placed = torch.cat(places) if places else backbone.head.texts(features[:, None])
    return ImmuneTexts(bank, features, Negatives(placed, torch.tensor(bank.owners, device=features.device)))


def selected(whole: ImmuneTexts, source: BankConfig, prototypes: Tensor) -> ImmuneTexts:
    """What negative selection leaves of a bank, or all of noise.

    Args:
        prototypes: float32 (K, D), unit vectors of the classes.

    Raises:
        ConfigError: see `select`.
    """
    if isinstance(source, RandomBank):
        return whole
    selection = select(whole.bank, whole.features, prototypes.to(whole.features), source.selection)
    return replace(whole.without(~selection.kept), selection=selection)
