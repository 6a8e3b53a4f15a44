"""The data plan: which samples a rank reads when, as a pure function. Nothing here has state or touches a file.

The order of an epoch is hashed from (seed, epoch): shards are shuffled, then samples are mixed within windows of
neighbouring shards, so that reading stays local. Batch b of an epoch is the same set of samples for any number of
ranks; a rank takes a contiguous slice of it.
"""

import hashlib
import json
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from configs.errors import DataError
from datamodules.seeds import Purpose, stream


@dataclass(frozen=True)
class TrainPlan:
    """Exact epochs: every sample at most once, whole accumulation windows, equally many batches on every rank.

    Args:
        shards: samples per shard, in the order of the manifest.
        data_digest: the manifest's digest.
        batch_size: samples per batch over all ranks.
        accumulate: batches per step of the optimiser.
        window: shards that are mixed with each other.

    Raises:
        DataError: fewer samples than one step of the optimiser takes.
    """

    shards: tuple[int, ...]
    data_digest: str
    seed: int
    batch_size: int
    accumulate: int = 1
    window: int = 16

    def __post_init__(self) -> None:
        if self.samples < self.batch_size * self.accumulate:
            raise DataError(
                f"{self.samples} training samples don't fill one step of {self.accumulate} x {self.batch_size}: lower "
                "data.batch_size or trainer.accumulate"
            )

    @property
    def samples(self) -> int:
        """Samples in the split."""
        return sum(self.shards)

    @property
    def batches(self) -> int:
        """Batches per epoch, the same on every rank."""
        return self.steps * self.accumulate

    @property
    def steps(self) -> int:
        """Steps of the optimiser per epoch."""
        return self.samples // (self.batch_size * self.accumulate)

    @property
    def dropped(self) -> int:
        """Samples that an epoch leaves out. Which ones they are changes with the epoch."""
        return self.samples - self.batches * self.batch_size

    @property
    def digest(self) -> str:
        """Two plans with one digest read the same samples in the same order."""
        content = [self.data_digest, self.shards, self.seed, self.batch_size, self.accumulate, self.window]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]

    def batch(self, epoch: int, batch: int, rank: int = 0, world: int = 1) -> np.ndarray:
        """Positions (batch_size / world,) int64 of the samples that `rank` of `world` reads in a batch of an epoch."""
        local = local_batch_size(self.batch_size, world)
        start = batch * self.batch_size + rank * local
        return self.span(epoch, start, start + local)

    def span(self, epoch: int, start: int, stop: int) -> np.ndarray:
        """Positions (stop - start,) int64 of the samples at places start..stop of an epoch's order; only the windows
        that they lie in are shuffled."""
        ends = _window_ends(self, epoch)
        first, last = np.searchsorted(ends, [start, stop - 1], side="right")
        samples = np.concatenate([_window(self, epoch, window) for window in range(int(first), int(last) + 1)])
        offset = int(ends[first - 1]) if first else 0
        return samples[start - offset : stop - offset]

    def substitute(self, sample: int, draw: np.random.Generator) -> int:
        """A sample to stand in for one that can't be read."""
        return int(draw.integers(self.samples))


def local_batch_size(batch_size: int, world: int) -> int:
    """Samples per batch and rank. DataError where the ranks don't divide the batch."""
    if batch_size % world:
        raise DataError(f"data.batch_size={batch_size} is not a multiple of {world} ranks: change one of them")
    return batch_size // world


@lru_cache(maxsize=4)
def _shard_order(plan: TrainPlan, epoch: int) -> np.ndarray:
    return stream(Purpose.SHARDS, plan.seed, epoch).permutation(len(plan.shards))


@lru_cache(maxsize=4)
def _window_ends(plan: TrainPlan, epoch: int) -> np.ndarray:
    sizes = np.array(plan.shards)[_shard_order(plan, epoch)]
    ends = np.cumsum(sizes)
    return np.append(ends[plan.window - 1 : -1 : plan.window], ends[-1])


@lru_cache(maxsize=8)
def _window(plan: TrainPlan, epoch: int, window: int) -> np.ndarray:
    starts = np.cumsum((0, *plan.shards))
    shards = _shard_order(plan, epoch)[window * plan.window : (window + 1) * plan.window]
    samples = np.concatenate([np.arange(starts[shard], starts[shard + 1]) for shard in shards])
    return stream(Purpose.WINDOW, plan.seed, epoch, window).permutation(samples)


@dataclass(frozen=True)
class EvalPlan:
    """Every sample exactly once, in contiguous ranges per rank. Ranks that run out are padded, so that all of them
    have equally many batches.

    Args:
        population: samples in the split.
        batch_size: samples per batch over all ranks.
        world: number of ranks.
        subset: how many samples, evenly spread over the split; None takes all.
    """

    population: int
    batch_size: int
    world: int = 1
    subset: int | None = None

    @property
    def samples(self) -> int:
        """Samples that are evaluated, over all ranks: what the valid ones must add up to."""
        return self.population if self.subset is None else min(self.subset, self.population)

    @property
    def places(self) -> np.ndarray:
        """Positions (samples,) int64 of the samples in their split."""
        return self._spread(np.arange(self.samples))

    @property
    def local(self) -> int:
        """Samples per batch and rank, padding included."""
        return ceil_div(self.batch_size, self.world)

    @property
    def batches(self) -> int:
        """Batches on every rank."""
        return ceil_div(ceil_div(self.samples, self.world), self.local)

    def batch(self, batch: int, rank: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Positions (local,) int64 and validity (local,) bool. Padding repeats the first sample."""
        start, stop = self._start(rank), self._start(rank + 1)
        places = start + batch * self.local + np.arange(self.local)
        valid = places < stop
        return self._spread(np.where(valid, places, 0)), valid

    def _spread(self, places: np.ndarray) -> np.ndarray:
        return places * self.population // self.samples

    def _start(self, rank: int) -> int:
        return rank * self.samples // self.world


def ceil_div(dividend: int, divisor: int) -> int:
    """The quotient, rounded up."""
    return -(-dividend // divisor)
