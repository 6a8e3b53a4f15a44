"""Training batches made of groups: samples of one class of a tree's level, so that parents have children in a batch."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, reduce
from typing import Any

import numpy as np

from configs.errors import DataError, did_you_mean
from configs.schema.data import Grouping
from datamodules.manifest import Manifest
from datamodules.plan import TrainPlan
from datamodules.seeds import Purpose, stream


@dataclass(frozen=True)
class GroupingLevel:
    """Classes to group by. `ancestors` int64 (leaves,) is the class of each leaf, `where` says whose classes they are,
    for messages."""

    names: tuple[str, ...]
    ancestors: np.ndarray
    where: str


def level_of(manifest: Manifest, grouping: Grouping, leaves: Sequence[str]) -> GroupingLevel:
    """The level that a grouping names; the leaves themselves where it names no tree.

    Raises:
        DataError: the data set has no such tree, or one that is not over these leaves; the tree has no such level; the
            level has one class, so that a group would be any samples.
    """
    if grouping.tree is None:
        return GroupingLevel(tuple(leaves), np.arange(len(leaves)), f"data set {manifest.name!r}")
    levels, parents = _tree(manifest, grouping.tree, len(leaves))
    if grouping.level > len(parents):
        raise DataError(
            f"tree {grouping.tree!r} of data set {manifest.name!r} has no level {grouping.level} for "
            f"data.grouping.level: choose from 1 to {len(parents)}"
        )
    names, where = tuple(levels[grouping.level]), f"level {grouping.level} of tree {grouping.tree!r}"
    if len(names) < 2:
        raise DataError(f"{where} has no other class than {names[0]!r} to group by: lower data.grouping.level")
    ancestors = reduce(lambda classes, above: above[classes], map(np.array, parents[: grouping.level]))
    return GroupingLevel(names, ancestors, where)


def _tree(manifest: Manifest, name: str, leaves: int) -> tuple[list[list[str]], list[list[int]]]:
    """Levels and parents, which fit each other and the leaves."""
    if name not in manifest.trees:
        remedy = did_you_mean(name, manifest.trees) if manifest.trees else "it has none, leave it null"
        raise DataError(f"data.grouping.tree={name!r} is no tree of data set {manifest.name!r}: {remedy}")
    try:
        levels, parents = manifest.trees[name]["levels"], manifest.trees[name]["parents"]
        sizes = [leaves, *map(len, levels[1:])]
        fits = [len(row) for row in parents] == sizes[:-1]
        fits = fits and all(0 <= min(row) <= max(row) < above for row, above in zip(parents, sizes[1:], strict=True))
    except (KeyError, TypeError, ValueError):
        fits = False
    if not fits:
        raise DataError(
            f"tree {name!r} of data set {manifest.name!r} is none over its {leaves} classes, with one parent each: "
            "correct it in the manifest"
        )
    return levels, parents


@dataclass(frozen=True, kw_only=True, eq=False)
class GroupedPlan(TrainPlan):
    """A plan whose batches are whole groups of samples of one class; a rank's slice is made of whole groups too, where
    its size is a multiple of theirs.

    The samples of a class are cut into groups in the order in which the plain plan reads them, and a group is read
    where one of its samples, drawn at random, would have been. So groups of a class are as frequent as its samples,
    evenly over the epoch, and those of a class with a share f of the samples reach over group / f places of the plain
    order. What is left of a class, less than a group, is dropped, and is another each epoch.

    Args:
        classes: int32 (samples,), by position.
        group: samples per group; divides `batch_size`.
        where: whose classes they are, for messages.

    Raises:
        DataError: fewer groups than one step of the optimiser takes.
    """

    classes: np.ndarray
    group: int
    where: str

    # Itself alone: an array has no hash to find an epoch's order by.
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    @classmethod
    def of(cls, plan: TrainPlan, level: GroupingLevel, label: np.ndarray, group: int) -> "GroupedPlan":
        """The plan in groups. `label` (samples,) is of leaves.

        Raises:
            DataError: a class that occurs, but not often enough for one group: it would never be drawn.
        """
        classes = level.ancestors[label].astype(np.int32)
        counts = np.bincount(classes)
        small = np.flatnonzero((counts > 0) & (counts < group))
        if len(small):
            first = small[counts[small].argmin()]
            others = f", nor would {len(small) - 1} others" if len(small) > 1 else ""
            raise DataError(
                f"{level.names[first]!r} of {level.where} has {counts[first]} training samples and would never be in a "
                f"group of data.grouping.samples={group}{others}: lower it, or group by a higher level of a tree"
            )
        return cls(**vars(plan), classes=classes, group=group, where=level.where)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.steps:
            raise DataError(
                f"{self.groups} groups of {self.group} training samples don't fill one step of {self.accumulate} x "
                f"{self.batch_size}: lower data.batch_size or trainer.accumulate"
            )

    @cached_property
    def groups(self) -> int:
        """Whole groups in the split, the same in every epoch."""
        return int((np.bincount(self.classes) // self.group).sum())

    @property
    def steps(self) -> int:
        """Steps of the optimiser per epoch."""
        return self.groups * self.group // (self.batch_size * self.accumulate)

    @property
    def digest(self) -> str:
        """Two plans with one digest read the same samples in the same order."""
        content = f"{super().digest} {self.group} ".encode() + self.classes.tobytes()
        return hashlib.sha256(content).hexdigest()[:16]

    def span(self, epoch: int, start: int, stop: int) -> np.ndarray:
        """Positions (stop - start,) int64 of the samples at places start..stop of an epoch's order."""
        return _order(self, epoch)[start:stop].astype(np.int64)

    def substitute(self, sample: int, draw: np.random.Generator) -> int:
        """A sample of the same class, to stand in for one that can't be read."""
        return int(draw.choice(np.flatnonzero(self.classes == self.classes[sample])))

    def describe(self) -> dict[str, Any]:
        """What the samples of a batch have in common, for a dry run."""
        classes = len(np.unique(self.classes))
        return {
            "groups per batch": f"{self.batch_size // self.group} of {self.group} samples of a class, "
            f"of {classes} classes of {self.where}",
            "dropped for whole groups": self.samples - self.groups * self.group,
        }


@lru_cache(maxsize=1)
def _order(plan: GroupedPlan, epoch: int) -> np.ndarray:
    """Positions (groups * group,) int32. An epoch of 1.3 million samples keeps 5 MB."""
    plain = TrainPlan.span(plan, epoch, 0, plan.samples).astype(np.int32)
    groups = _groups(plan.classes[plain], plan.group)
    lead = stream(Purpose.GROUPS, plan.seed, epoch).integers(plan.group, size=len(groups))
    sequence = np.argsort(groups[np.arange(len(groups)), lead])
    return plain[groups[sequence]].ravel()


def _groups(classes: np.ndarray, group: int) -> np.ndarray:
    """Places (groups, group): each class's places in order, cut; what is left of a class is left out."""
    places = np.argsort(classes, kind="stable").astype(np.int32)
    counts = np.bincount(classes)
    nth = np.arange(len(places)) - np.repeat(np.cumsum(counts) - counts, counts)
    return places[nth < np.repeat(counts // group * group, counts)].reshape(-1, group)
