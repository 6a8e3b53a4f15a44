"""Superclasses that were named class by class -> superclasses that are a tree."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True)
class Change:
    """A superclass that had several parents at the level above. `votes`: how many classes named each."""

    name: str
    level: int
    parent: str
    votes: Mapping[str, int]

    def __str__(self) -> str:
        others = ", ".join(f"{name!r} ({count})" for name, count in self.votes.items() if name != self.parent)
        kept = f"{self.parent!r} ({self.votes[self.parent]})"
        return f"level {self.level}: {self.name!r} is below {kept}, no longer below {others}"


def reconcile(superclasses: Mapping[str, Sequence[str]]) -> tuple[dict[str, tuple[str, ...]], list[Change]]:
    """One spelling for a name at a level, where case does not count, and one parent: what most classes named, the first
    by alphabet where as many named another.

    Args:
        superclasses: of each class, nearest first, as many for each.

    Returns:
        The superclasses of each class, which then are a tree's, and what was changed to that end.
    """
    spelt = _spelt_alike(superclasses)
    changes: list[Change] = []
    parents: list[dict[str, str]] = []
    for level, votes in enumerate(_votes(list(spelt.values())), start=1):
        parents.append({name: _winner(counted) for name, counted in votes.items()})
        changes += [
            Change(name, level, parents[-1][name], dict(sorted(counted.items())))
            for name, counted in votes.items()
            if len(counted) > 1
        ]
    return {name: _upwards(above[0], parents) for name, above in spelt.items()}, changes


def _spelt_alike(superclasses: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
    spellings: dict[str, Counter[str]] = defaultdict(Counter)
    for above in superclasses.values():
        for name in above:
            spellings[name.casefold()][name] += 1
    chosen = {folded: _winner(counted) for folded, counted in spellings.items()}
    return {name: tuple(chosen[each.casefold()] for each in above) for name, above in superclasses.items()}


def _votes(paths: Sequence[Sequence[str]]) -> list[dict[str, Counter[str]]]:
    """Per level but the last: superclass -> how many classes named which parent."""
    levels: list[dict[str, Counter[str]]] = [defaultdict(Counter) for _ in paths[0][1:]]
    for path in paths:
        for votes, (child, parent) in zip(levels, pairwise(path), strict=True):
            votes[child][parent] += 1
    return levels


def _winner(counted: Mapping[str, int]) -> str:
    return min(counted, key=lambda name: (-counted[name], name))


def _upwards(name: str, parents: Sequence[Mapping[str, str]]) -> tuple[str, ...]:
    path = [name]
    for above in parents:
        path.append(above[path[-1]])
    return tuple(path)
