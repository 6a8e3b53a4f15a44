"""Two processes: what ranks read is disjoint, together it is what one process reads, and evaluation is exact."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from folders import config, packed
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from datamodules import build_datamodule


class Recorder(LightningModule):
    """Writes down the keys that its rank saw."""

    def __init__(self, out: str) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.out = out
        self.seen: dict[str, list[Any]] = {"train": [], "val": [], "padding": []}

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        self.seen["train"].append(batch["key"])
        return (self.weight - batch["image"].mean()) ** 2

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        for key, valid in zip(batch["key"], batch["valid"].tolist(), strict=True):
            self.seen["val" if valid else "padding"].append(key)

    def on_fit_end(self) -> None:
        Path(self.out, f"{self.trainer.world_size}-{self.global_rank}.json").write_text(json.dumps(self.seen))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(folder: Path, out: Path, world: int, **data: Any) -> list[dict[str, list[Any]]]:
    """Two epochs; what each rank saw."""
    trainer = Trainer(
        max_epochs=2,
        accelerator="cpu",
        devices=world,
        strategy="ddp_fork" if world > 1 else "auto",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(Recorder(str(out)), build_datamodule(config(folder, **data), seed=1))
    return [json.loads((out / f"{world}-{rank}.json").read_text()) for rank in range(world)]


@pytest.mark.slow
@pytest.mark.parametrize("start_method", ["fork", "spawn"])
def test_two_ranks_read_what_one_reads(tmp_path: Path, start_method: str) -> None:
    packed(tmp_path / "zoo", {"train": 22, "val": 7})
    (alone,) = fit(tmp_path / "zoo", tmp_path, 1)
    ranks = fit(tmp_path / "zoo", tmp_path, 2, workers=1, start_method=start_method)
    assert [len(rank["train"]) for rank in ranks] == [10, 10]
    assert [left + right for left, right in zip(ranks[0]["train"], ranks[1]["train"], strict=True)] == alone["train"]
    for epoch in (0, 1):
        seen = [sorted(key for keys in rank["train"][5 * epoch : 5 * epoch + 5] for key in keys) for rank in ranks]
        assert not set(seen[0]) & set(seen[1])
        assert len(set(seen[0] + seen[1])) == 20
    everything = sorted(f"val-{number}" for number in range(7))
    assert sorted(alone["val"]) == sorted(ranks[0]["val"] + ranks[1]["val"]) == sorted(2 * everything)
    assert len(ranks[0]["val"] + ranks[0]["padding"]) == len(ranks[1]["val"] + ranks[1]["padding"])
