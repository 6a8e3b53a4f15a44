"""Metrics over two gloo processes with uneven shares equal those of one process."""

import os
import socket
from pathlib import Path

import pytest
import torch
import torch.multiprocessing
from torch import Tensor, distributed

from lightning_modules.hierarchy import Tree
from lightning_modules.metrics import Accuracy, Consistency, Count, LevelAccuracy, OODDetection, TreeErrors

TREE = Tree("toy", (("cat", "dog", "car", "bus"), ("animal", "vehicle")), ((0, 0, 1, 1),))
SAMPLES = 37
CUTS = (25, SAMPLES)  # where the second process begins; with the last it sees no sample at all


def samples() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    predictions, labels = torch.randint(4, (2, SAMPLES), generator=generator)
    scores = torch.randint(12, (SAMPLES,), generator=generator).double()
    return predictions, labels, scores, torch.rand(SAMPLES, generator=generator) > 0.6


def measure(share: slice, padding: int) -> dict[str, Tensor]:
    """All metrics over batches of 4, the last of them padded."""
    accuracy, by_level, count, detection = Accuracy(), Accuracy(torch.tensor([0, 0, 1, 1])), Count(), OODDetection()
    levels, errors, consistency = LevelAccuracy(1), TreeErrors(TREE), Consistency(TREE.ancestors(1)[None])
    rows = torch.arange(SAMPLES)[share]
    for batch in rows.split(4):
        valid = torch.arange(len(batch) + padding) < len(batch)
        batch = torch.cat([batch, batch.new_zeros(padding)])
        predictions, labels, scores, is_ood = (each[batch] for each in samples())
        accuracy.update(predictions, labels, valid)
        by_level.update(predictions, labels, valid)
        levels.update((predictions == labels)[None], valid)
        errors.update(predictions, labels, valid)
        consistency.update(predictions, TREE.ancestors(1)[labels][None], valid)
        count.update(valid)
        detection.update(scores, is_ood, valid)
    return {
        "accuracy": accuracy.compute(),
        "level": by_level.compute(),
        "levels": levels.compute(),
        "consistency": consistency.compute(),
        **errors.compute(),
        "count": count.compute(),
        **detection.compute(),
    }


def work(rank: int, port: int, folder: Path) -> None:
    torch.set_num_threads(1)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    distributed.init_process_group("gloo", rank=rank, world_size=2)
    shares = [slice(0, cut) if rank == 0 else slice(cut, SAMPLES) for cut in CUTS]
    torch.save([measure(share, padding=rank) for share in shares], folder / f"{rank}.pt")
    distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(work, args=(port, tmp_path), nprocs=2)
    alone = measure(slice(0, SAMPLES), padding=0)
    assert alone["count"].item() == SAMPLES
    for rank in range(2):
        for together in torch.load(tmp_path / f"{rank}.pt"):
            torch.testing.assert_close(together, alone, rtol=0, atol=0)
