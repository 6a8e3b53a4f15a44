"""Which drawings stand for what: a curated table over Unicode's groups, one concept a row of `concepts.tsv`."""

import csv
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal

Role = Literal["id", "near_seen", "near_unseen", "far", "other"]


@dataclass(frozen=True)
class Concept:
    """A drawing with its name.

    hexcode   the drawing's code points, OpenMoji's file stem.
    role      `id`: a leaf class. `near_seen`, `near_unseen`: held-out members of the same subgroups, of which
              pretraining saw the first. `far`: other groups. `other`: seen by pretraining only.
    subgroup, group   its superclasses in the curated Unicode tree.
    wnid      its WordNet 3.0 noun synset, for every leaf class, and where WordNet has the name of what pretraining saw;
              or empty.
    """

    hexcode: str
    name: str
    role: Role
    subgroup: str
    group: str
    wnid: str

    @property
    def code_points(self) -> list[int]:
        """The drawing's code points as integers: what its renderings are seeded with."""
        return [int(part, 16) for part in self.hexcode.split("-")]


@cache
def concepts(*roles: Role) -> tuple[Concept, ...]:
    """All concepts of these roles, in the table's order, which is the order of the leaf classes."""
    with (files(__package__) / "concepts.tsv").open(encoding="utf-8") as table:
        rows: list[Any] = list(csv.DictReader(table, delimiter="\t"))
    return tuple(Concept(**row) for row in rows if row["role"] in roles)
