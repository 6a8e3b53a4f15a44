"""What predictions at every level of a forest are counted by."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lightning_modules.hierarchy import Forest
from lightning_modules.metrics import Consistency, Count, LevelAccuracy, TreeErrors
from lightning_modules.probes import Sums


class Figure(NamedTuple):
    """One number: of a level; or of a whole tree, with level None; or of the whole forest, with tree None as well."""

    metric: str
    value: float
    n: int
    tree: str | None
    level: int | None


class Scorecard(nn.Module):
    """Counts one set of images: the clean ones, or what one attack on one level made of them. M levels, B images.

    level_accuracy  by prompt, and `accuracy` by leaf: see `SuperclassEvaluation`.
    the others      see `TreeErrors` and `Consistency`, a tree each.
    """

    ancestors: Tensor

    def __init__(self, forest: Forest) -> None:
        super().__init__()
        self.forest = forest
        self.register_buffer("ancestors", torch.tensor([level.ancestors for level in forest.levels]), persistent=False)
        levels = len(forest.levels)
        self.seen, self.sums = Count(), Sums(("zero_gradient", "broken"))
        self.by_prompt, self.by_leaf = LevelAccuracy(levels), LevelAccuracy(levels)
        self.errors = [TreeErrors(tree) for tree in forest.trees]
        self.places = [
            [place for place, level in enumerate(forest.levels) if level.tree == tree.name] for tree in forest.trees
        ]
        self.consistency = [Consistency(self.ancestors[places]) for places in self.places]
        self._on_device = nn.ModuleList([*self.errors, *self.consistency])  # so that `.to` finds them

    def update(self, clean: Tensor, found: Tensor, labels: Tensor, zero_gradient: Tensor | None = None) -> None:
        """Predictions by prompt on the clean images and on these, int64 (M, B), -1 for none; labels int64 (B,), of
        which none is padding; the share of zero gradients float32 (B,), see `Adversarial`."""
        everyone = torch.ones_like(labels, dtype=torch.bool)
        truth = self.ancestors[:, labels]
        self.seen.update(everyone)
        self.by_prompt.update((clean == truth) & (found == truth), everyone)
        self.by_leaf.update(self._by_leaf(clean[0], truth) & self._by_leaf(found[0], truth), everyone)
        for errors, consistency, places in zip(self.errors, self.consistency, self.places, strict=True):
            errors.update(found[0], labels, everyone)
            consistency.update(found[0], found[places], everyone)
        hidden = 0.0 if zero_gradient is None else float(zero_gradient.double().sum())
        self.sums.update(zero_gradient=hidden, broken=float((found < 0).any(0).sum()))

    def _by_leaf(self, leaves: Tensor, truth: Tensor) -> Tensor:
        """Whether the leaves' ancestors are right, bool (M, B)."""
        return (self.ancestors[:, leaves] == truth) & (leaves >= 0)

    def count(self) -> int:
        """Samples seen, over all ranks."""
        return int(self.seen.compute())

    def figures(self) -> list[Figure]:
        """Levels in the forest's order, by prompt and by leaf; then each tree's metrics."""
        accuracies = {"level_accuracy": self.by_prompt.compute(), "accuracy": self.by_leaf.compute()}
        by_level = [
            Figure(metric, value, self.count(), level.tree, level.number)
            for metric, values in accuracies.items()
            for level, value in zip(self.forest.levels, values.tolist(), strict=True)
        ]
        return [*by_level, *self._tree_figures()]

    def checks(self) -> dict[str, Any]:
        """What speaks for and against the figures: see `Tally`."""
        sums = self.sums.compute()
        hidden = round(sums["zero_gradient"] / max(self.count(), 1), 6)
        return {
            "attacked": self.count(),
            "broken": int(sums["broken"]),
            "zero_gradient": hidden,
            "suspect": ["gradients are zero"] if hidden > 0.5 else [],
        }

    def _tree_figures(self) -> Iterator[Figure]:
        for tree, errors, consistency in zip(self.forest.trees, self.errors, self.consistency, strict=True):
            found = {name: float(value) for name, value in errors.compute().items()}
            mistakes = int(found.pop("mistakes"))
            counts = dict.fromkeys(found, self.count()) | {"lca_height": mistakes}
            for metric, value in found.items():
                if value == value:  # there may be no mistake, or no prediction, to take a mean of
                    yield Figure(metric, value, counts[metric], tree.name, None)
            yield Figure("consistency", float(consistency.compute()), self.count(), tree.name, None)
