"""What a measurement consists of: probes, what each of them counts, and some pictures to look at."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torchmetrics import Metric

from configs.errors import DataError
from configs.schema.attack import ENSEMBLES, PGD, Attack, AutoAttack, TorchAttack, labelless
from lightning_modules.backbones.quick import Compilation
from lightning_modules.hierarchy import Tree
from lightning_modules.ledger import Array
from lightning_modules.metrics import Accuracy, Count

Row = dict[str, Any]
Level = tuple[str | None, int]
"""A tree's name and a level of it; (None, 0) is the leaves, which all trees share."""


@dataclass(frozen=True)
class Probe:
    """One pass over one split: what is done to its images and how many there are.

    name    of the attack, or `clean`, or `sweep` for a point of the accuracy-by-eps curve.
    attack  None leaves the pixels alone.
    patient whether an attack spends its whole budget on each image, for the sake of the classes above the leaves.
    """

    name: str
    split: str
    samples: int
    attack: Attack | None = None
    patient: bool = False

    @property
    def scheduled(self) -> bool:
        """Whether samples leave as soon as their leaf falls, so that there is no figure for the classes above."""
        if self.attack is None or labelless(self.attack):
            return False
        return not (self.patient or isinstance(self.attack, (PGD, TorchAttack)))

    @property
    def stages(self) -> tuple[str, ...]:
        """The attacks that a scheduled probe consists of, in order."""
        if not self.scheduled:
            return ()
        if isinstance(self.attack, AutoAttack):
            return ENSEMBLES[self.attack.version] or tuple(self.attack.attacks)
        return (str(getattr(self.attack, "kind", "")),)

    def covers(self, other: "Probe") -> bool:
        """Whether a sample that falls to the other has fallen here: the same attack on the same split, and there at a
        smaller radius."""
        if not (self.scheduled and other.scheduled and self.split == other.split):
            return False
        mine, theirs = asdict(self.attack), asdict(other.attack)  # type: ignore[arg-type]
        return theirs.pop("eps_255") < mine.pop("eps_255") and mine == theirs


@dataclass(frozen=True)
class Terms:
    """What all attacks of a measurement have in common.

    seed      of their random draws, with the index of each sample.
    slots     largest batch of a scheduled attack.
    fast      whether they see the model in bfloat16. Who falls is said by the float32 model either way.
    compiled  whether torch.compile takes the model that they see, see `quick_embedding`.
    pictures  how many samples of the first attack are kept for the eye.
    """

    seed: int
    slots: int
    fast: bool = False
    compiled: Compilation = "none"
    pictures: int = 0


class Sums(Metric):
    """Named sums over samples and all ranks, float64."""

    full_state_update = False
    sums: Tensor

    def __init__(self, names: Sequence[str], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.names = tuple(names)
        self.add_state("sums", default=torch.zeros(len(self.names), dtype=torch.float64), dist_reduce_fx="sum")
        self.set_dtype(torch.float64)

    def update(self, **values: float) -> None:
        """Adds to the sums of these names."""
        self.sums += torch.tensor([values.get(name, 0.0) for name in self.names]).to(self.sums)

    def compute(self) -> dict[str, float]:
        return dict(zip(self.names, self.sums.tolist(), strict=True))


class Tally(nn.Module):
    """What one probe counts. Metrics are sums or concatenations over valid samples and all ranks.

    settled, standing  samples of an attacked probe on this rank that are done, and how many of those withstood.
    """

    def __init__(self, probe: Probe, trees: Sequence[Tree]) -> None:
        super().__init__()
        levels = [(tree, level) for tree in trees if not probe.scheduled for level in range(1, tree.depth + 1)]
        self.probe = probe
        self.settled = self.standing = 0
        self.count = Count()
        self.attacked = Sums(("attacked", "broken", "inherited", "zero_gradient", *probe.stages))
        self.levels: list[Level] = [(None, 0), *((tree.name, level) for tree, level in levels)]
        self.accuracies = [Accuracy(), *(Accuracy(tree.ancestors(level)) for tree, level in levels)]
        self._on_device = nn.ModuleList(self.accuracies)  # so that `.to` finds them

    def settle(self, records: Array) -> None:
        """Counts samples of an attacked probe, RECORDs (N,)."""
        device = self.count.total.device
        answers = torch.from_numpy(np.c_[records["clean"], records["worst"]].T.astype(np.int64)).to(device)
        labels = torch.from_numpy(records["label"].astype(np.int64)).to(device)
        everyone = torch.ones_like(labels, dtype=torch.bool)
        self.count.update(everyone)
        for accuracy in self.accuracies:
            accuracy.update(answers, labels, everyone)
        felled = records["stage"][records["attacked"] & records["fallen"]]
        stages = {name: float((felled == number).sum()) for number, name in enumerate(self.probe.stages)}
        sums = {name: float(records[name].sum()) for name in ("attacked", "broken", "inherited")}
        self.attacked.update(**sums, **stages, zero_gradient=float(records["zero_gradient"].astype(np.float64).sum()))
        self.settled += len(records)
        self.standing += int((~records["fallen"]).sum())

    def check(self) -> None:
        """Raises DataError where the probe did not see each of its samples once."""
        seen = int(self.count.compute())
        if seen != self.probe.samples:
            raise DataError(
                f"{self.probe.name} over split {self.probe.split!r} saw {seen} samples of {self.probe.samples}; its "
                "figures would not be exact: check the data set with 'pack --verify', and that no rank died"
            )

    def rows(self, beliefs: Mapping[str, Any]) -> list[Row]:
        """Accuracy per level.

        Args:
            beliefs: what an examination of the model found; it goes into the checks of an attacked probe.
        """
        common = {
            "n": self.probe.samples,
            "split": self.probe.split,
            "attack": None if self.probe.attack is None else asdict(self.probe.attack),
            "attack_name": None if self.probe.name == "clean" else self.probe.name,
            "score": None,
            "checks": {} if self.probe.attack is None else self._checks(beliefs),
        }
        return [
            {"metric": "accuracy", "value": float(accuracy.compute()), "tree": tree, "level": level, **common}
            for (tree, level), accuracy in zip(self.levels, self.accuracies, strict=True)
        ]

    def _checks(self, beliefs: Mapping[str, Any]) -> Row:
        """What speaks for and against the figures.

        attacked, inherited  samples that this attack worked on, and that had fallen at a smaller radius.
        broken               samples with an output that is not a number; they count as fallen.
        zero_gradient        mean share of coordinates without gradient, over the attacked samples.
        stages               attack of a sequence -> how many samples it felled.
        """
        sums = self.attacked.compute()
        hidden = round(sums["zero_gradient"] / max(sums["attacked"], 1), 6)
        own = ["gradients are zero"] if hidden > 0.5 else []
        found: Row = {name: int(sums[name]) for name in ("attacked", "inherited", "broken")}
        if self.probe.stages:
            found["stages"] = {name: int(sums[name]) for name in self.probe.stages}
        suspect = list(dict.fromkeys([*own, *beliefs.get("suspect", [])]))
        return {**beliefs, **found, "zero_gradient": hidden, "suspect": suspect}


class Pictures:
    """Some clean images, what an attack made of them, and what the model said to both."""

    def __init__(self, rows: Iterable[Any]) -> None:
        """
        Args:
            rows: as a `Ledger` keeps them.
        """
        answered = [row for row in rows if min(row["clean_prediction"], row["adversarial_prediction"]) >= 0]
        self.rows = sorted(answered, key=lambda row: int(row["index"]))

    def arrays(self) -> dict[str, Any]:
        """Images uint8 (P, 3, H, W) and int64 (P,) labels and predictions, by name, in the order of the split."""
        if not self.rows:
            return {}
        names = ("clean", "adversarial", "label", "clean_prediction", "adversarial_prediction")
        found = {name: np.stack([row[name] for row in self.rows]) for name in names}
        return {name: array if array.ndim > 1 else array.astype(np.int64) for name, array in found.items()}
