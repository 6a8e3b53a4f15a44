"""What the scores of one reference say to clean images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from configs.schema.scores import AdaNeg, Score
from lightning_modules.detection.mixed_stream import mixed
from lightning_modules.detection.panel import Panel
from lightning_modules.detection.rows import Versus
from lightning_modules.detection.table import Embedded, Observed, Table, worst
from lightning_modules.open_world import Reference, Scores


@dataclass(frozen=True)
class Part:
    """One pass over samples of a split.

    group     of an OOD split: `near` or `far`; None: in-distribution.
    attacked  whether adversaries work on the images; otherwise all scores see them as they are.
    """

    split: str
    samples: int
    group: str | None = None
    attacked: bool = False


class CleanLook:
    """All scores on clean parts: those that look at each image by itself, and those that learn from test images, see
    `mixed`.

    panel   the former.
    tables  of the panel, part by part; none has rows where the panel is empty.
    """

    def __init__(
        self,
        settings: Mapping[str, Score],
        reference: Reference,
        parts: Sequence[Part],
        seed: int,
    ) -> None:
        """
        Args:
            parts: in-distribution samples that set thresholds, those that figures are of, and OOD splits.
        """
        device = reference.classes.device
        learning = {name: setting for name, setting in settings.items() if isinstance(setting, AdaNeg)}
        self.parts, self.seed = list(parts), seed
        self.panel = Panel({name: each for name, each in settings.items() if name not in learning}, reference)
        self.learning = Scores(learning, reference) if learning else None
        self.tables = [Table(Observed).to(device) for _ in parts]
        self._embeddings = [Table(Embedded).to(device) for _ in parts]

    def take(self, number: int, index: Tensor, embeddings: Tensor, labels: Tensor) -> None:
        """Some samples of a part: positions int64 (B,), -1 for padding; embeddings (B, D); labels int64 (B,), -1 of OOD
        samples."""
        if self.panel.names:
            self.tables[number].update(index, self.panel.judge(embeddings, labels))
        if self.learning is not None:
            self._embeddings[number].update(index, Embedded(embeddings, labels))

    def calibrate(self) -> None:
        """Chooses the panel's thresholds, once the first part is over; all ranks together."""
        if self.panel.names:
            self.panel.calibrate(self.tables[0].compute())

    @cached_property
    def contests(self) -> dict[str, list[Versus]]:
        """Score -> every OOD split against the in-distribution one."""
        return self._alone() | self._together()

    def _alone(self) -> dict[str, list[Versus]]:
        if not self.panel.names:
            return {}
        inside, *outside = (table.compute() for table in self.tables[1:])
        return {
            name: [
                Versus(part.split, str(part.group), worst(inside, place, [0], False), worst(each, place, [0], True))
                for part, each in zip(self.parts[2:], outside, strict=True)
            ]
            for place, name in enumerate(self.panel.names)
        }

    def _together(self) -> dict[str, list[Versus]]:
        if self.learning is None:
            return {}
        inside, *outside = (table.compute() for table in self._embeddings[1:])
        found: dict[str, list[Versus]] = {name: [] for name in self.learning.scores}
        for part, each in zip(self.parts[2:], outside, strict=True):
            for name, sides in mixed(self.learning, inside, each, self.seed).items():
                found[name].append(Versus(part.split, str(part.group), *sides))
        return found
