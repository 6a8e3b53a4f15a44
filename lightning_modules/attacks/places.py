"""Places in the batch: walks leave them, and the next samples take them."""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Generic

import torch
from torch import Tensor

from lightning_modules.attacks import noise
from lightning_modules.attacks.method import Method, W
from lightning_modules.attacks.walks import Rows, Samples, take

_PARTS = 8  # samples change places in parts of the batch, so that what is there twice meanwhile takes little memory


@dataclass
class Watch(Rows):
    """What the engine notes of each walk, beside the method's own state. B walks."""

    seeds: Tensor
    trial: Tensor
    outputs: Tensor
    candidate: Tensor  # bool (B,): has been seen to fall since the last decision
    broken: Tensor
    zero_gradient: Tensor
    found: Tensor  # float32 (B, C, H, W): where it was seen to fall

    @classmethod
    def of(cls, samples: Samples) -> "Watch":
        """At the beginning of a trial."""
        no = torch.zeros_like(samples.row, dtype=torch.bool)
        nothing, found = samples.clean.new_zeros(len(samples)), samples.clean.clone()
        return cls(samples.row, samples.seeds, samples.trial, samples.outputs, no, no, nothing, found)


class Places(Generic[W]):
    """Walks of one method, at most `limit` of them, and the samples that wait for a place.

    waiting  samples that have none yet, in order.
    ages     questions of each walk, known without asking the device.
    left     places whose sample has left; `fill` gives them to others, or up.
    """

    def __init__(self, method: Method[W], limit: int, stage: int) -> None:
        self.method, self.limit, self.stage = method, limit, stage
        self.waiting: deque[Samples] = deque()
        self.ages: list[int] = []
        self.left: list[int] = []
        self._walks: W | None = None
        self._watch: Watch | None = None

    @property
    def held(self) -> int:
        """Samples inside, those that wait included."""
        return len(self.ages) - len(self.left) + sum(map(len, self.waiting))

    @property
    def state(self) -> tuple[W, Watch]:
        """Of the walks; there must be some."""
        assert self._walks is not None
        assert self._watch is not None
        return self._walks, self._watch

    def rows(self, places: Sequence[int]) -> Tensor:
        """int64 (R,), where the walks are."""
        return torch.tensor(places, device=self.state[1].row.device)

    def samples(self, rows: Tensor, trial: Tensor) -> Samples:
        """Those of some walks, int64 (R,), before a trial, int64 (R,)."""
        walks, watch = self.state
        return Samples(
            watch.row[rows], walks.clean[rows], walks.target[rows], watch.outputs[rows], watch.seeds[rows], trial
        )

    def parts(self, places: Sequence[int]) -> Iterator[Sequence[int]]:
        """Some places at a time."""
        yield from (places[first : first + self._part] for first in range(0, len(places), self._part))

    @torch.no_grad()
    def fill(self) -> None:
        """Samples that wait take the places of those that left, then further ones; what is left over is given up."""
        if len(self.left) == len(self.ages):
            self._give_up()
        while self.left and self.waiting:
            samples = take(self.waiting, min(len(self.left), self._part))
            self.put([self.left.pop() for _ in range(len(samples))], samples)
        self._give_up()
        if self.waiting and (room := self.limit - len(self.ages)):
            self._add(take(self.waiting, room))

    def put(self, places: Sequence[int], samples: Samples) -> None:
        """New walks in the place of others, so that it costs what it changes."""
        walks, watch = self.state
        rows = self.rows(places)
        walks.put(rows, self._begin(samples))
        watch.put(rows, Watch.of(samples))
        for place in places:
            self.ages[place] = 0

    def _add(self, samples: Samples) -> None:
        walks, watch = self._begin(samples), Watch.of(samples)
        if self._walks is None or self._watch is None:
            self._walks, self._watch = walks, watch
        else:
            self._walks.extend(walks)
            self._watch.extend(watch)
        self.ages += [0] * len(samples)

    def _give_up(self) -> None:
        if not self.left:
            return
        stay = sorted(set(range(len(self.ages))).difference(self.left))
        self.ages, self.left = [self.ages[place] for place in stay], []
        if not stay:
            self._walks = self._watch = None
            return
        rows = self.rows(stay)
        for each in self.state:
            each.keep(rows)

    def _begin(self, samples: Samples) -> W:
        return self.method.begin(replace(samples, seeds=noise.derive(samples.seeds, self.stage)))

    @property
    def _part(self) -> int:
        return max(self.limit // _PARTS, 1)
