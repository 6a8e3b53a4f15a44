"""A bank: the antibodies of a data set's classes, in order."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from torch import Tensor

from configs.errors import DataError
from lightning_modules.antibodies.antibody import Antibody, to_json
from lightning_modules.antibodies.json_lines import json_line
from lightning_modules.hierarchy.outline import some


@dataclass(frozen=True)
class Bank:
    """N antibodies of K classes, some of which may have none.

    synsets  the class names' meanings in WordNet, as `BankSource` has them.

    Raises:
        DataError: an antibody is of a class that is none of `class_names`.
    """

    name: str
    class_names: tuple[str, ...]
    antibodies: tuple[Antibody, ...]
    synsets: str | None = None

    def __post_init__(self) -> None:
        known = {None, *self.class_names}
        foreign = dict.fromkeys(each.class_name for each in self.antibodies if each.class_name not in known)
        if foreign:
            raise DataError(
                f"the bank {self.name!r} is for other classes: {some([str(name) for name in foreign])} are not among "
                "the data set's; name another bank, or take them out"
            )

    def __len__(self) -> int:
        return len(self.antibodies)

    @cached_property
    def captions(self) -> list[str]:
        """Noun phrases, as they go into the templates in place of a class's name."""
        return [each.caption for each in self.antibodies]

    @cached_property
    def owners(self) -> list[int]:
        """Index of each antibody's class; -1 where it is of none."""
        index: dict[str | None, int] = {name: place for place, name in enumerate(self.class_names)}
        return [index.get(each.class_name, -1) for each in self.antibodies]

    @cached_property
    def digest(self) -> str:
        """sha256 over the antibodies as they are written."""
        lines = "".join(json_line(to_json(each)) for each in self.antibodies)
        return hashlib.sha256(lines.encode()).hexdigest()

    @property
    def families(self) -> dict[str, int]:
        """Family -> how many antibodies."""
        return dict(Counter(each.family for each in self.antibodies))

    @property
    def bare(self) -> list[str]:
        """Classes without an antibody."""
        owned = set(self.owners)
        return [name for place, name in enumerate(self.class_names) if place not in owned]

    def without(self, mask: Tensor) -> "Bank":
        """The bank without the antibodies where `mask`, bool (N,), is true."""
        kept = [each for each, dropped in zip(self.antibodies, mask.tolist(), strict=True) if not dropped]
        return replace(self, antibodies=tuple(kept))


@dataclass(frozen=True)
class Difference:
    """What a bank lost and what it gained, by class, family and text."""

    removed: tuple[Antibody, ...]
    added: tuple[Antibody, ...]

    def __str__(self) -> str:
        lines = [f"{sign} {_told(each)}" for sign, side in (("-", self.removed), ("+", self.added)) for each in side]
        return "\n".join([f"{len(self.removed)} antibodies removed, {len(self.added)} added", *lines])


def diff(before: Bank, after: Bank) -> Difference:
    """What changed from one bank to another, in their orders."""
    return Difference(_beyond(before.antibodies, after.antibodies), _beyond(after.antibodies, before.antibodies))


def _beyond(these: Sequence[Antibody], others: Sequence[Antibody]) -> tuple[Antibody, ...]:
    known = Counter(map(_told, others))
    found = []
    for each in these:
        if known[_told(each)] > 0:
            known[_told(each)] -= 1
        else:
            found.append(each)
    return tuple(found)


def _told(antibody: Antibody) -> str:
    return f"{antibody.class_name or '(no class)'} | {antibody.family} | {antibody.text}"
