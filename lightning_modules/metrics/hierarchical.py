"""Accuracy at every level of a class hierarchy, how far the mistakes go in a tree, and whether the levels agree."""

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from lightning_modules.hierarchy.tree import Tree


class LevelAccuracy(Metric):
    """Share of valid samples that are right, at each of M levels. `compute` returns float64 (M,), NaN without any."""

    full_state_update = False
    right: Tensor
    total: Tensor

    def __init__(self, levels: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("right", default=torch.zeros(levels, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("total", default=torch.tensor(0), dist_reduce_fx="sum")

    def update(self, right: Tensor, valid: Tensor) -> None:
        """Right bool (M, B); valid bool (B,), False on padding."""
        self.right += right[:, valid].sum(dim=1)
        self.total += valid.sum()

    def compute(self) -> Tensor:
        return self.right.double() / self.total


class TreeErrors(Metric):
    """How wrong leaf predictions are, by the tree that the classes hang in.

    The root is the lowest level of one class, or else a class above the top level. A class of its parent's name is its
    parent, as where a short path repeats its top to reach the level of the others; no edge is between the two.
    The ancestors of a class, itself included and the root left out, are P for a prediction and T for a label. No
    prediction (-1) counts as the root: P is empty.

    `compute` returns float64 scalars:
        tree_induced_error      edges from the label to the prediction by their lowest common ancestor (LCA), which is
                                |P| + |T| - 2 |P and T|, mean over the samples (Dekel et al. 2004).
        lca_height              level of the LCA, mean over the mistakes; NaN where there are none (Deng et al. 2010;
                                Bertinetto et al. 2020, "mistake severity").
        hierarchical_precision  sum of |P and T| over sum of |P| (Kiritchenko et al. 2005; Silla & Freitas 2011;
                                Kosmopoulos et al. 2015); NaN where nothing was predicted.
        hierarchical_recall     sum of |P and T| over sum of |T|.
        mistakes                how many there were.
    """

    full_state_update = False
    shared: Tensor
    predicted: Tensor
    true: Tensor
    heights: Tensor
    mistakes: Tensor
    total: Tensor
    ancestors: Tensor
    edges: Tensor

    def __init__(self, tree: Tree, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        for name in ("shared", "predicted", "true", "heights", "mistakes", "total"):
            self.add_state(name, default=torch.tensor(0), dist_reduce_fx="sum")
        several = [level for level, names in enumerate(tree.levels) if len(names) > 1]
        ancestors = [tree.ancestors(level) for level in several]
        self.register_buffer("ancestors", torch.stack(ancestors), persistent=False)  # (R, leaves), R: the root's level
        self.register_buffer("edges", _edges(tree, len(several)), persistent=False)

    def update(self, predictions: Tensor, labels: Tensor, valid: Tensor) -> None:
        """Leaf indices int64 (B,), -1 for no prediction; valid bool (B,), False on padding, whose labels are not looked
        at."""
        predictions, labels = predictions[valid], labels[valid]
        answered = predictions >= 0
        same = (self.ancestors[:, predictions] == self.ancestors[:, labels]) & answered
        lowest = (~same).sum(dim=0)  # the LCA's level: where two paths have met, they stay together
        self.shared += (self.edges[-1, labels] - self.edges[lowest, labels]).sum()
        self.predicted += (self.edges[-1, predictions] * answered).sum()
        self.true += self.edges[-1, labels].sum()
        self.heights += lowest.sum()
        self.mistakes += (lowest > 0).sum()
        self.total += len(labels)

    def compute(self) -> dict[str, Tensor]:
        shared = self.shared.double()
        return {
            "tree_induced_error": (self.predicted + self.true - 2 * shared) / self.total,
            "lca_height": self.heights.double() / self.mistakes,
            "hierarchical_precision": shared / self.predicted,
            "hierarchical_recall": shared / self.true,
            "mistakes": self.mistakes,
        }


class Consistency(Metric):
    """Share of valid samples whose prediction at each level is the parent of the one below, down to the leaf.

    `compute` returns a float64 scalar, NaN without samples.

    Args:
        ancestors: int64 (M, leaves), each leaf's class at the M levels above the leaves.
    """

    full_state_update = False
    agreeing: Tensor
    total: Tensor
    ancestors: Tensor

    def __init__(self, ancestors: Tensor, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("agreeing", default=torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("total", default=torch.tensor(0), dist_reduce_fx="sum")
        self.register_buffer("ancestors", ancestors, persistent=False)

    def update(self, leaves: Tensor, above: Tensor, valid: Tensor) -> None:
        """Predicted leaves int64 (B,), -1 for none, which agrees with nothing; predictions at the levels above (M, B);
        valid bool (B,), False on padding."""
        # A chain of parents is right throughout if each class is the ancestor of the leaf that the chain begins with.
        agreeing = (self.ancestors[:, leaves] == above).all(dim=0) & (leaves >= 0)
        self.agreeing += agreeing[valid].sum()
        self.total += valid.sum()

    def compute(self) -> Tensor:
        return self.agreeing.double() / self.total


def _edges(tree: Tree, root: int) -> Tensor:
    """int64 (root + 1, leaves): edges from each leaf up to its ancestor at each level, and to the root."""
    names = [[tree.levels[level][each] for each in tree.ancestors(level)] for level in range(min(root, tree.depth) + 1)]
    names += [[""] * len(tree.levels[0])] * (root + 1 - len(names))
    rises = [[0] * len(names[0])]
    rises += [[int(low != high) for low, high in zip(*pair, strict=True)] for pair in pairwise(names)]
    return torch.tensor(rises).cumsum(dim=0)
