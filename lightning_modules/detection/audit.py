"""Which OOD concepts the banks of a measurement name, and the same model without the antibodies that do."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from configs.schema.scores import EOE, AdaNeg, NegLabel, Score, SDis
from lightning_modules.antibodies import Overlap, overlap
from lightning_modules.antibodies.names import HOWS
from lightning_modules.immune_texts import ImmuneTexts
from lightning_modules.open_world import Reference
from lightning_modules.open_world.immunity import Immunity


class OverlapAudit:
    """Holds every bank against the concepts of every OOD split.

    The antibodies of a vaccinated model are masked where they are those of a named text; what it learnt from them stays
    learnt.
    """

    def __init__(
        self,
        settings: Mapping[str, Score],
        texts: Mapping[str, ImmuneTexts],
        concepts: Mapping[str, Sequence[str] | None],
        vaccine: str | None,
    ) -> None:
        """
        Args:
            texts: by bank.
            concepts: by OOD split; None where the data set doesn't say what is in it.
            vaccine: the bank that the model was vaccinated with.
        """
        self.settings, self.texts, self.vaccine = settings, texts, vaccine
        known = {split: names for split, names in concepts.items() if names}
        self.overlaps: dict[str, dict[str, Overlap]] = {
            bank: {split: overlap(found.bank, names) for split, names in known.items()} for bank, found in texts.items()
        }
        self.masks = {
            bank: torch.stack([each.mask for each in found.values()]).any(0)
            for bank, found in self.overlaps.items()
            if found
        }

    def named(self, score: str, split: str) -> dict[str, int]:
        """How many of a split's concepts the score's bank names, by the strongest way, of how many; empty where it has
        no bank or nothing is known of the split."""
        found = self.overlaps.get(bank_of(self.settings[score], self.vaccine) or "", {}).get(split)
        if found is None:
            return {}
        return {how: len(found.by(how)) for how in HOWS} | {"concepts": len(found.concepts)}

    @property
    def affected(self) -> dict[str, Score]:
        """Scores whose bank names something, and other things too."""
        return {
            name: setting
            for name, setting in self.settings.items()
            if _some_of(self.masks.get(bank_of(setting, self.vaccine) or ""))
        }

    def without(self, reference: Reference) -> Reference:
        """What images are compared with, less the antibodies that name a concept of any OOD split."""
        banks = {name: self.texts[name].without(mask).negatives for name, mask in self.masks.items() if _some_of(mask)}
        return replace(reference, banks=banks, immunity=self._masked(reference.immunity))

    def _masked(self, immunity: Immunity | None) -> Immunity | None:
        if immunity is None or self.vaccine is None or self.vaccine not in self.masks:
            return immunity
        mask = self.masks[self.vaccine].tolist()
        return immunity.without(
            {text for text, named in zip(self.texts[self.vaccine].bank.captions, mask, strict=True) if named}
        )


def bank_of(setting: Score, vaccine: str | None) -> str | None:
    """The bank that a score works with, if any."""
    match setting:
        case NegLabel(bank=bank) | EOE(bank=bank) | AdaNeg(bank=bank):
            return bank
        case SDis():
            return vaccine
    return None


def _some_of(mask: Tensor | None) -> bool:
    return mask is not None and bool(mask.any()) and not bool(mask.all())
