"""The overlap audit: what a bank says about concepts that it should know nothing of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_modules.antibodies.bank import Bank
from lightning_modules.antibodies.names import HOWS, How, NameIndex, meanings

_WORDS = {"exactly": "exactly", "synonym": "by a synonym", "hypernym": "by a hypernym"}


@dataclass(frozen=True)
class Overlap:
    """Concept -> how a bank's antibodies name it, in the concepts' order; and which of the N antibodies name any.

    named  concept -> the strongest way, and the antibodies' places.
    mask   bool (N,).
    """

    concepts: tuple[str, ...]
    named: Mapping[str, tuple[How, tuple[int, ...]]]
    mask: Tensor

    def __str__(self) -> str:
        """Counts and names, the strongest way first."""
        ways = [f"{len(self.by(how))} {_WORDS[how]} ({', '.join(self.by(how))})" for how in HOWS if self.by(how)]
        said = f"by {int(self.mask.sum()):,} antibodies: {'; '.join(ways)}" if ways else ""
        return f"{len(self.named)} of {len(self.concepts)} concepts are named {said}".rstrip()

    def by(self, how: How) -> list[str]:
        """The concepts that are named in this way, and in no stronger one."""
        return [concept for concept, (way, _) in self.named.items() if way == how]


def overlap(bank: Bank, concepts: Sequence[str]) -> Overlap:
    """Which concepts the bank names: exactly (the name is part of a text), by another word for it in WordNet, or by a
    word for what it is a kind of, where that is the whole text. The class's own name in a text does not count."""
    index = NameIndex(concepts, meanings(concepts, None))
    found: dict[int, list[tuple[How, int]]] = {}
    for place, each in enumerate(bank.antibodies):
        for concept, how in index.find(each.own_words).items():
            found.setdefault(concept, []).append((how, place))
    mask = torch.zeros(len(bank), dtype=torch.bool)
    mask[[place for ways in found.values() for _, place in ways]] = True
    named = {
        concept: (min((how for how, _ in found[index]), key=HOWS.index), tuple(place for _, place in found[index]))
        for index, concept in enumerate(concepts)
        if index in found
    }
    return Overlap(tuple(concepts), named, mask)
