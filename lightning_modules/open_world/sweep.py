"""Images against all texts of a bank, block by block: everything that scores ask about them, from one comparison.

B images, N texts, G groups. The similarities (B, N) of everything are never kept, not for a backward pass either.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import lcm, prod

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from lightning_modules.heads import CosineHead, Head

ROWS = 512  # images in a block
BLOCK = {"cpu": 2**20, "cuda": 2**26}  # similarities in a block: a processor's cache, or enough to occupy a GPU
WARM = 0.025  # a temperature at which exp of cosines, from e^-40 to e^40, fits into float32 with their sums
NOTHING = -1e12  # the similarity of a place in a group that no text has


@dataclass(frozen=True)
class Softmax:
    """What a score asks for: log sum exp(similarity / temperature) over each group of texts.

    groups  text i is in group i % groups: all texts are dealt out, and groups differ in size by one at most.
    """

    temperature: float
    groups: int = 1


@dataclass(frozen=True, eq=False)
class Summary:
    """What a sweep found.

    largest  (B,), the largest similarity.
    masses   by temperature: logsumexp (B, G), G a multiple of all numbers of groups that were asked for.
    """

    largest: Tensor
    masses: Mapping[float, Tensor]

    def logsumexp(self, asked: Softmax) -> Tensor:
        """(B, groups), no temperature in front."""
        # Dealt in turn, so that the groups of a divisor of G are unions of G's.
        return _dealt(self.masses[asked.temperature], asked.groups).logsumexp(1)


class Sweep:
    """Compares images with a bank for all that is asked at once: one matrix product, one exponential a temperature."""

    def __init__(self, head: Head, asked: Iterable[Softmax]) -> None:
        self.head = head
        self.bounded = isinstance(head, CosineHead)
        groups: dict[float, int] = {}
        for each in asked:
            groups[each.temperature] = lcm(each.groups, groups.get(each.temperature, 1))
        self.groups = dict(sorted(groups.items(), reverse=True))  # the coldest is the dearest, and has no copy to make
        self.finest = lcm(*groups.values())

    def __call__(self, images: Tensor, points: Tensor) -> Summary:
        """Points (B, D) of images and (N, D) of texts. Differentiable in the images."""
        rows = min(len(images), ROWS)
        size = BLOCK.get(images.device.type, BLOCK["cpu"]) // max(rows * self.finest, 1)
        columns = max(size, 1) * self.finest  # whole rounds of dealing
        # To get memory costs more than what is done in it, so that blocks share theirs; those of a graph can't.
        graph = torch.is_grad_enabled() and images.requires_grad
        room = None if graph else images.new_empty(2, rows * columns)
        parts = [self._rows(part, torch.split(points, columns), room) for part in torch.split(images, max(rows, 1))]
        largest, *masses = (torch.cat(each) for each in zip(*parts, strict=True))
        return Summary(largest, dict(zip(self.groups, masses, strict=True)))

    def _rows(self, images: Tensor, blocks: Sequence[Tensor], room: Tensor | None) -> list[Tensor]:
        """The largest similarity (B,), and for each temperature the masses (B, its groups)."""
        found: list[Tensor] = []
        for block in blocks:
            if room is None:
                new = checkpoint(self._block, images, block, None, use_reentrant=False, preserve_rng_state=False)
            else:
                new = self._block(images, block, room)
            found = _joined(found, new) if found else new
        return found

    def _block(self, images: Tensor, points: Tensor, room: Tensor | None) -> list[Tensor]:
        similarities = self._similarities(images, points, room)
        missing = -len(points) % self.finest
        if missing:
            similarities = F.pad(similarities, (0, missing), value=NOTHING)
        peaks = _dealt(similarities, self.finest).amax(1)
        masses = []
        for left, (temperature, groups) in zip(reversed(range(len(self.groups))), self.groups.items(), strict=True):
            place = _place(room, min(left, 1), similarities.shape)  # the last one takes that of the similarities
            if self.bounded and temperature >= WARM:
                masses.append(_bounded_mass(similarities, temperature, groups, place))
            else:
                masses.append(_mass(similarities, peaks, temperature, groups, place))
        return [peaks.amax(1), *masses]

    def _similarities(self, images: Tensor, points: Tensor, room: Tensor | None) -> Tensor:
        if not self.bounded or room is None:
            return self.head.similarities(images, points)
        with torch.autocast(images.device.type, enabled=False):
            return torch.mm(images, points.T, out=_place(room, 0, (len(images), len(points))))


def _joined(one: list[Tensor], other: list[Tensor]) -> list[Tensor]:
    masses = [torch.logaddexp(*pair) for pair in zip(one[1:], other[1:], strict=True)]
    return [torch.maximum(one[0], other[0]), *masses]


def _mass(similarities: Tensor, peaks: Tensor, temperature: float, groups: int, place: Tensor | None) -> Tensor:
    """logsumexp (B, groups) of similarities (B, n) / temperature, by the groups' own peaks: at a temperature of 0.01
    float32 holds exp of cosines over a range of 0.87 only, which a peak that all groups share does not ensure."""
    peak = _dealt(peaks.detach(), groups).amax(1, keepdim=True)
    out = None if place is None else _dealt(place, groups)
    heights = torch.sub(_dealt(similarities, groups), peak, out=out).mul_(1 / temperature)
    return heights.exp_().sum(1).log() + peak.squeeze(1) / temperature


def _bounded_mass(cosines: Tensor, temperature: float, groups: int, place: Tensor | None) -> Tensor:
    """The same at a temperature that is `WARM`, where no peak is needed and a pass over the block is saved."""
    heights = torch.mul(cosines, 1 / temperature, out=place).exp_()
    return _dealt(heights, groups).sum(1).clamp_min(torch.finfo(cosines.dtype).tiny).log()


def _place(room: Tensor | None, number: int, shape: Sequence[int]) -> Tensor | None:
    """Where a result goes: one of the two places of a room (2, S), with S at least its size; None: new memory."""
    return None if room is None else room[number, : prod(shape)].view(*shape)


def _dealt(columns: Tensor, groups: int) -> Tensor:
    """(B, n / groups, groups) of (B, n): the last dimension is the group."""
    return columns.view(len(columns), -1, groups)
