"""Negative selection: which antibodies are neither useless nor directed against the classes themselves.

It sees the bank, the class names and a model's features of both, and nothing else: no image, no data set, and no set of
what is out of distribution.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from configs.errors import ConfigError
from configs.schema.antibodies import Band, BandSelection, FurthestSelection
from lightning_modules.antibodies.bank import Bank
from lightning_modules.antibodies.duplicates import near_duplicates
from lightning_modules.antibodies.names import NameIndex, meanings
from lightning_modules.hierarchy.outline import some

BLOCK = 4096  # antibodies that are compared with all classes at a time


@dataclass(frozen=True)
class Selection:
    """The verdict on N antibodies.

    kept     bool (N,).
    own      float (N,): cosine with the own class's prototype; nan where there is none.
    nearest  float (N,): the largest cosine with any class's prototype.
    reasons  why one was dropped, as "rule: what exactly"; None where it was kept.
    """

    kept: Tensor
    own: Tensor
    nearest: Tensor
    reasons: list[str | None]


@dataclass(frozen=True)
class Cosines:
    """Of N antibodies: with their own class (nan without one), with the nearest other class, and which that is."""

    own: Tensor
    other: Tensor
    neighbour: Tensor

    @property
    def nearest(self) -> Tensor:
        """With any class."""
        return torch.fmax(self.own, self.other)


def select(bank: Bank, features: Tensor, prototypes: Tensor, rules: BandSelection | FurthestSelection) -> Selection:
    """Judges every antibody. The same input gives the same verdict, and what is equal is taken in the bank's order.

    Args:
        features: (N, D), a direction for each antibody.
        prototypes: (K, D), a direction for each class.

    Raises:
        ConfigError: a band leaves nothing of a class that it had antibodies of.
        DataError: a file of synsets that does not fit the classes.
    """
    unit = F.normalize(features.float(), dim=1)
    centres = F.normalize(prototypes.float(), dim=1)
    cosines = _cosines(unit, centres, bank.owners)
    if isinstance(rules, FurthestSelection):
        reasons = _furthest(bank, unit, centres, rules)
    else:
        reasons = _in_band(bank, unit, cosines, rules)
    kept = torch.tensor([reason is None for reason in reasons], dtype=torch.bool)
    return Selection(kept, cosines.own.cpu(), cosines.nearest.cpu(), reasons)


def _cosines(features: Tensor, prototypes: Tensor, owners: Sequence[int]) -> Cosines:
    columns = torch.tensor(owners, device=features.device)
    parts = []
    for rows, owner in zip(torch.split(features, BLOCK), torch.split(columns, BLOCK), strict=True):
        cosines = rows @ prototypes.T
        own = cosines.gather(1, owner.clamp_min(0)[:, None]).squeeze(1).where(owner >= 0, math.nan)
        is_own = owner[:, None] == torch.arange(len(prototypes), device=owner.device)
        other, neighbour = cosines.masked_fill(is_own, -1.0).max(dim=1)
        parts.append((own, other, neighbour))
    return Cosines(*(torch.cat(part) for part in zip(*parts, strict=True)))


def _furthest(bank: Bank, features: Tensor, prototypes: Tensor, rule: FurthestSelection) -> list[str | None]:
    closeness = torch.cat(
        [(rows @ prototypes.T).quantile(rule.quantile, dim=1) for rows in torch.split(features, BLOCK)]
    )
    reasons: list[str | None] = [None] * len(bank)
    for family in bank.families:
        members = [place for place, each in enumerate(bank.antibodies) if each.family == family]
        order = closeness[members].argsort(stable=True).tolist()
        for rank in order[max(1, _count(rule.share, len(members))) :]:
            reasons[members[rank]] = f"near: {closeness[members[rank]]:.3f} to the classes"
    return reasons


def _in_band(bank: Bank, features: Tensor, cosines: Cosines, rules: BandSelection) -> list[str | None]:
    reasons: list[str | None] = [None] * len(bank)
    if rules.names:
        _drop_named(bank, NameIndex(bank.class_names, meanings(bank.class_names, bank.synsets)), reasons)
    if rules.duplicates is not None:
        _drop_duplicates(bank, features, rules.duplicates, reasons)
    before = _remaining(bank, reasons)
    for family in bank.families:
        members = [
            place for place, each in enumerate(bank.antibodies) if each.family == family and reasons[place] is None
        ]
        band = rules.bands.get(family, rules.band)
        _drop_foreign(bank, cosines, band, members, reasons)
        _drop_outside(bank, cosines, band, members, reasons)
    _check(bank, before - _remaining(bank, reasons), rules)
    return reasons


def _drop_named(bank: Bank, index: NameIndex, reasons: list[str | None]) -> None:
    for place, each in enumerate(bank.antibodies):
        for named, how in index.find(each.own_words).items():
            reasons[place] = f"name: {how} {index.names[named]!r}"
            break


def _drop_duplicates(bank: Bank, features: Tensor, threshold: float, reasons: list[str | None]) -> None:
    groups: dict[int, list[int]] = defaultdict(list)
    for place, owner in enumerate(bank.owners):
        if reasons[place] is None:
            groups[owner].append(place)
    for members in groups.values():
        for place, first in zip(members, near_duplicates(features[members], threshold), strict=True):
            if first is not None:
                reasons[place] = f"duplicate: of {bank.captions[members[first]]!r}"


def _drop_foreign(bank: Bank, cosines: Cosines, band: Band, members: Sequence[int], reasons: list[str | None]) -> None:
    """Those that are too near to a class that is not theirs."""
    values = cosines.other[list(members)]
    _, high = _outside(values, -math.inf, band.foreign, band.scale)
    for rank in high:
        place = members[rank]
        named = bank.class_names[int(cosines.neighbour[place])]
        reasons[place] = f"foreign: {values[rank]:.3f} to {named!r}"


def _drop_outside(bank: Bank, cosines: Cosines, band: Band, members: Sequence[int], reasons: list[str | None]) -> None:
    """Of each class, those that are too far from it, and too near to it."""
    groups: dict[int, list[int]] = defaultdict(list)
    for place in members:
        if reasons[place] is None and bank.owners[place] >= 0:
            groups[bank.owners[place]].append(place)
    for own in groups.values():
        values = cosines.own[own]
        low, high = _outside(values, band.safe, band.risk, band.scale)
        for ranks, rule in ((low, "far"), (high, "near")):
            for rank in ranks:
                reasons[own[rank]] = f"{rule}: {values[rank]:.3f} to its class"


def _outside(values: Tensor, low: float, high: float, scale: str) -> tuple[list[int], list[int]]:
    """Places (of n values) that are below and above the band."""
    if scale == "absolute":
        return (values <= low).nonzero().flatten().tolist(), (values >= high).nonzero().flatten().tolist()
    order = values.argsort(stable=True).tolist()
    lowest = _count(max(low, 0), len(order))
    highest = _count(1 - high, len(order))
    return order[:lowest], order[len(order) - highest :]


def _count(share: float, total: int) -> int:
    """A share of `total`, rounded down, whatever binary fractions make of it."""
    return math.floor(share * total + 1e-9)


def _remaining(bank: Bank, reasons: Sequence[str | None]) -> set[int]:
    return {owner for owner, reason in zip(bank.owners, reasons, strict=True) if reason is None and owner >= 0}


def _check(bank: Bank, emptied: set[int], rules: BandSelection) -> None:
    if emptied:
        names = some([bank.class_names[owner] for owner in sorted(emptied)])
        key = f"antibodies.{bank.name}.selection.band"
        if any(band.scale == "absolute" for band in (rules.band, *rules.bands.values())):
            advice = f"set its scale to quantile, as in {key}.scale=quantile with safe=0.1 and risk=0.9, or widen it"
        else:  # whose own ends leave one at least
            advice = f"they are near other classes: raise {key}.foreign, 1 at most"
        raise ConfigError(f"the band of antibodies.{bank.name} drops every antibody of {names}; {advice}")
