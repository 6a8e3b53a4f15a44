"""The loader: a real, sized DataLoader over a plan. It owns its epoch, and resumes from a count of batches."""

import logging
import random
import signal
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader
from torch.utils.data.distributed import DistributedSampler

from configs.errors import DataError
from configs.schema.data import Loading
from datamodules.batches import Batch, EvalBatches, Fetched, TrainBatches
from datamodules.seeds import Purpose, sequence

log = logging.getLogger(__name__)
REPORT_EVERY = 100  # errors, after the first


class Places(DistributedSampler[tuple[int, int]]):
    """(epoch, batch) from `consumed` to the end of its epoch. The plan has sliced by rank already; being a
    DistributedSampler tells Lightning not to do it again."""

    def __init__(self, batches: TrainBatches | EvalBatches) -> None:
        super().__init__(batches, num_replicas=1, rank=0, shuffle=False)
        self.batches = len(batches)
        self.consumed = 0

    def __iter__(self) -> Iterator[tuple[int, int]]:
        epoch, first = divmod(self.consumed, self.batches)
        return iter([(epoch, batch) for batch in range(first, self.batches)])

    def __len__(self) -> int:
        return self.batches


class PlannedLoader(DataLoader[Fetched]):
    """Batches of one rank, in the plan's order, whatever the number of workers or how they are started.

    `len` is batches per epoch. A training loader counts the batches that it handed out; iterating continues after
    `consumed` of them, in the epoch that this falls in. An evaluation loader always starts from the beginning.

    Raises:
        DataError: while iterating, at the first error that is over `max_errors` in an epoch.
    """

    def __init__(self, batches: TrainBatches | EvalBatches, config: Loading, seed: int, consumed: int = 0) -> None:
        places = Places(batches)
        rank = batches.source.rank
        super().__init__(
            batches,
            batch_size=None,
            sampler=places,
            num_workers=config.workers,
            collate_fn=_unchanged,
            worker_init_fn=_Start(seed, rank),
            multiprocessing_context=config.start_method if config.workers else None,
            # Not torch's global generator: the loader must not disturb what the model draws.
            generator=torch.Generator().manual_seed(_seed(seed, rank, 0)),
            pin_memory=torch.cuda.is_available(),
            persistent_workers=config.workers > 0 and isinstance(batches, TrainBatches),
        )
        self.places = places
        self.plan = batches.plan
        self.consumed = consumed
        self.errors = 0  # samples replaced in this epoch, on this rank
        self._max_errors = config.max_errors
        self._training = isinstance(batches, TrainBatches)

    def __len__(self) -> int:
        return len(self.places)

    @property
    def samples(self) -> int:
        """Samples in the split, or the subset of it, over all ranks."""
        return self.plan.samples

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]  # lazy: Lightning asks twice, and uses one
        self.places.consumed = self.consumed
        self.errors = 0
        for fetched in super().__iter__():
            batch = self._accepted(fetched)
            self.consumed += self._training
            yield batch

    def _accepted(self, fetched: Fetched) -> Batch:
        for error in fetched.errors:
            self.errors += 1
            if self._max_errors and self.errors % REPORT_EVERY == 1:
                log.warning("replaced an unreadable sample (number %d in this epoch): %s", self.errors, error)
        if fetched.batch is None:
            raise DataError(fetched.errors[-1])
        if self.errors > self._max_errors:
            raise DataError(
                f"{self.errors} training samples of this epoch can't be read, data.max_errors={self._max_errors}; the "
                f"last one: {fetched.errors[-1]}"
            )
        return {
            name: torch.from_numpy(value) if isinstance(value, np.ndarray) else value
            for name, value in fetched.batch.items()
        }

    def state_dict(self) -> dict[str, Any]:
        """Empty: the position travels with the datamodule. Lightning asks for it to see that this loader resumes."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to do, see `state_dict`."""


class _Start:
    """What a worker does first: one thread each, as there are many; its own seeds, though nothing here needs any; and
    leave Ctrl-C and a scheduler's warnings to the main process, which may want to finish its step."""

    def __init__(self, seed: int, rank: int) -> None:
        self.seed = seed
        self.rank = rank

    def __call__(self, worker: int) -> None:
        for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(number, signal.SIG_IGN)
        torch.set_num_threads(1)
        seed = _seed(self.seed, self.rank, 1 + worker)
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)


def _seed(seed: int, rank: int, worker: int) -> int:
    return int(sequence(Purpose.WORKER, seed, rank, worker).generate_state(1)[0])


def _unchanged(fetched: Any) -> Any:
    return fetched
