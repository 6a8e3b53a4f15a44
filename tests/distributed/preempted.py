"""A rank of a training that tells the test when it has come to a certain moment, and waits there to be killed."""

import io
import os
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, BinaryIO

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only

from configs.compose import compose
from experiments.train import train
from tests.integration.runs import faulty

HERE, GO_ON = b"here", b"go on"


class Moments(Callback):
    """Counts what may be cut short, and stops at one: the `count`-th `kind` of this attempt.

    kind  batch: before a batch, in the middle of an accumulation window or not; backward: a gradient is there, no step
          yet; step: after the optimiser's, before anything is logged or saved; saving: half of a checkpoint is written;
          validating: before a batch of a validation; running: a batch has begun, and nobody waits.
    """

    def __init__(self, told: Connection, kind: str, count: int) -> None:
        self.told, self.kind, self.left = told, kind, count

    def come_to(self, kind: str) -> None:
        """Tells the test where that is the moment, and waits for it."""
        self.left -= kind == self.kind
        if kind == self.kind and self.left == 0:
            self.told.send_bytes(HERE)
            if kind != "running":
                self.told.recv_bytes()

    def save(self, content: Any, file: BinaryIO) -> None:
        """In place of torch.save."""
        buffer = io.BytesIO()
        _save(content, buffer)
        written = buffer.getvalue()
        file.write(written[: len(written) // 2])
        file.flush()
        self.come_to("saving")
        file.write(written[len(written) // 2 :])

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self.come_to("batch")
        self.come_to("running")

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.come_to("backward")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.come_to("step")

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self.come_to("validating")


_save = torch.save


def attempt(
    experiment: Path, rank: int, ranks: int, environment: dict[str, str], told: Connection, kind: str, count: int
) -> None:
    """Trains as the rank of a launcher like torchrun; ends the process with the verb's exit code."""
    torch.set_num_threads(1)
    os.environ.update(environment)
    if ranks > 1:
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "TORCHELASTIC_RUN_ID": "x"}
        os.environ.update({name: str(value) for name, value in place.items()}, MASTER_ADDR="127.0.0.1")
    rank_zero_only.rank = rank  # Lightning read it from the environment when it was imported
    moments = Moments(told, kind, count)
    torch.save = moments.save
    with faulty(moments, first=True):
        os._exit(train(compose(experiment)))
