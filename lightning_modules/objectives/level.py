"""One term of a hierarchical loss: a level of a tree, and which classes its softmax runs over."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_modules.hierarchy import Forest, Level

Negatives = Literal["none", "below", "above", "both"]


@dataclass(frozen=True, eq=False)
class Term:
    """Cross-entropy at a level. K leaves, C classes at the level, M texts that its softmax may run over.

    tree, number  which level: index of the tree in the forest, and of the level in the tree.
    weight        omega of the level.
    ancestors     int64 (K,): the class of each leaf.
    texts         int64 (M,): places among the forest's nodes; the level's own classes come first.
    allowed       bool (C, M): which of them are in the denominator where the right class is c.
    """

    tree: int
    number: int
    weight: float
    ancestors: Tensor
    texts: Tensor
    allowed: Tensor

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """-log of the right class's share, float32 (B,), of logits (B, M) and leaf labels int64 (B,)."""
        classes = self.ancestors[labels]
        return F.cross_entropy(logits.masked_fill(~self.allowed[classes], float("-inf")), classes, reduction="none")


def terms(
    forest: Forest, weights: tuple[float, ...] | None, negatives: Negatives, device: torch.device
) -> tuple[Term, ...]:
    """A term for every level of every tree. Trees share their leaves, and each of them has its own term for them, since
    the neighbours differ.

    Args:
        weights: per level, 0 = leaves; levels beyond have none. None: 1 - l / (L + 1) at level l of a tree with L
            levels above its leaves (Dong et al. 2026, eq. 10).
        negatives: which neighbouring levels join the denominator (eq. 9).
    """
    found = []
    for place, tree in enumerate(forest.trees):
        levels = forest.levels_of(tree)
        for index, level in enumerate(levels):
            weight = _weight(level.number, tree.depth, weights)
            below = levels[index - 1 : index] if negatives in ("below", "both") else ()
            above = levels[index + 1 : index + 2] if negatives in ("above", "both") else ()
            if weight > 0:
                found.append(_term(place, weight, (level, *below, *above), device))
    return tuple(found)


def _weight(number: int, depth: int, weights: tuple[float, ...] | None) -> float:
    if weights is None:
        return 1 - number / (depth + 1)
    return weights[number] if number < len(weights) else 0.0


def _term(place: int, weight: float, levels: tuple[Level, ...], device: torch.device) -> Term:
    """The term of levels[0]; the others are its neighbours."""
    level = levels[0]
    allowed = torch.cat([_negatives(level, other) for other in levels], dim=1)
    return Term(
        place,
        level.number,
        weight,
        torch.tensor(level.ancestors, device=device),
        torch.cat([torch.arange(other.start, other.stop) for other in levels]).to(device),
        allowed.to(device),
    )


def _negatives(level: Level, other: Level) -> Tensor:
    """bool (classes of `level`, classes of `other`): who is a negative of whom. At the level itself all classes are in
    the denominator; of a neighbour, those without an edge to the class. What has the name of the class, or of one that
    shares an edge with it, is no negative either: cut trees repeat a class over levels."""
    if other is level:
        return torch.ones(level.size, other.size, dtype=torch.bool)
    kin = torch.zeros(level.size, other.size, dtype=torch.bool)
    kin[list(level.ancestors), list(other.ancestors)] = True  # in a tree: exactly the pairs on one path
    names = torch.tensor([[mine == theirs for theirs in other.names] for mine in level.names])
    relatives = kin.float() @ torch.tensor([[a == b for b in other.names] for a in other.names]).float() > 0
    return ~(kin | names | relatives)


def edges(forest: Forest) -> list[tuple[int, int]]:
    """(child, parent) as places among the forest's nodes, of all trees; a class that its parent repeats has no edge."""
    found = set()
    for tree in forest.trees:
        levels = forest.levels_of(tree)
        for lower, upper in pairwise(levels):
            for child, parent in zip(lower.ancestors, upper.ancestors, strict=True):
                if lower.names[child] != upper.names[parent]:
                    found.add((lower.start + child, upper.start + parent))
    return sorted(found)
