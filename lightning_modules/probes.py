"""What a measurement consists of: probes, what each of them counts, and some pictures to look at."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import CatMetric, MeanMetric

from configs.errors import DataError
from configs.schema.attack import Attack
from lightning_modules.hierarchy import Tree
from lightning_modules.metrics import Accuracy, Count

Row = dict[str, Any]
Level = tuple[str | None, int]
"""A tree's name and a level of it; (None, 0) is the leaves, which all trees share."""


@dataclass(frozen=True)
class Probe:
    """One pass over one split: what is done to its images and how many there are.

    name    of the attack, or `clean`, or `sweep` for a point of the accuracy-by-eps curve.
    attack  None leaves the pixels alone.
    group   of an OOD split: `near` or `far`; None for in-distribution images.
    """

    name: str
    split: str
    samples: int
    attack: Attack | None = None
    group: str | None = None

    @property
    def scored(self) -> bool:
        """Whether open-world scores are taken: on the whole of a split, once, unattacked."""
        return self.name == "clean"


class Tally(nn.Module):
    """What one probe counts. Metrics are sums or concatenations over valid samples and all ranks."""

    def __init__(self, probe: Probe, trees: Sequence[Tree], scores: Iterable[str]) -> None:
        super().__init__()
        levels = [(tree, level) for tree in trees for level in range(1, tree.depth + 1)]
        self.probe = probe
        self.count = Count()
        self.zero_gradient = MeanMetric()
        self.levels: list[Level] = [(None, 0), *((tree.name, level) for tree, level in levels)]
        self.accuracies = [Accuracy(), *(Accuracy(tree.ancestors(level)) for tree, level in levels)]
        self.scores = {score: CatMetric().set_dtype(torch.float64) for score in scores}
        self._on_device = nn.ModuleList([*self.accuracies, *self.scores.values()])  # so that `.to` finds them

    def values(self, score: str) -> Tensor:
        """The score of every sample of the probe, float64, of all ranks."""
        return torch.as_tensor(self.scores[score].compute()).reshape(-1)

    def check(self) -> None:
        """Raises DataError where the probe did not see each of its samples once."""
        seen = int(self.count.compute())
        if seen != self.probe.samples:
            raise DataError(
                f"{self.probe.name} over split {self.probe.split!r} saw {seen} samples of {self.probe.samples}; its "
                "figures would not be exact: check the data set with 'pack --verify', and that no rank died"
            )

    def rows(self) -> list[Row]:
        """Accuracy per level; nothing for an OOD split, whose samples have no label."""
        if self.probe.group is not None:
            return []
        checks: Row = {}
        if self.probe.attack is not None:
            hidden = float(self.zero_gradient.compute())
            checks = {"zero_gradient": hidden, "suspect": ["gradients are zero"] if hidden > 0.5 else []}
        common = {
            "n": self.probe.samples,
            "split": self.probe.split,
            "attack": None if self.probe.attack is None else asdict(self.probe.attack),
            "attack_name": None if self.probe.name == "clean" else self.probe.name,
            "score": None,
            "checks": checks,
        }
        return [
            {"metric": "accuracy", "value": float(accuracy.compute()), "tree": tree, "level": level, **common}
            for (tree, level), accuracy in zip(self.levels, self.accuracies, strict=True)
        ]


@dataclass
class Pictures:
    """Some clean images, what an attack made of them, and what the model said to both. Host memory."""

    wanted: int
    clean: list[Tensor] = field(default_factory=list)  # float (3, H, W)
    adversarial: list[Tensor] = field(default_factory=list)
    label: list[int] = field(default_factory=list)
    clean_prediction: list[int] = field(default_factory=list)
    adversarial_prediction: list[int] = field(default_factory=list)

    @property
    def missing(self) -> int:
        """How many are still wanted."""
        return self.wanted - len(self.label)

    def arrays(self) -> dict[str, Any]:
        """Images uint8 (P, 3, H, W) and int64 (P,) labels and predictions, by name."""
        if not self.label:
            return {}
        images = {name: torch.stack(getattr(self, name)) for name in ("clean", "adversarial")}
        found = {name: (image * 255).round().byte().numpy() for name, image in images.items()}
        for name in ("label", "clean_prediction", "adversarial_prediction"):
            found[name] = torch.tensor(getattr(self, name)).numpy()
        return found
