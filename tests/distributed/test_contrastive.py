"""Contrastive pretraining on two gloo processes equals one process with the joined batch."""

import os
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing
import torch.nn.functional as F
from lightning.pytorch import Trainer
from torch import Tensor, distributed
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from configs.schema.model import ModelConfig
from configs.schema.module import OptimConfig
from lightning_modules.backbones import load_backbone
from lightning_modules.pretraining import ContrastivePretraining, contrastive_loss

PAIRS = 6
TEXTS = [f"a {name}" for name in ("cat", "dog", "red disc", "cow", "green square", "hen")]


def pixels() -> Tensor:
    return torch.rand(PAIRS, 3, 32, 32, generator=torch.Generator().manual_seed(0))


class Step(torch.nn.Module):
    """The loss as a module's forward, which DistributedDataParallel wants."""

    def __init__(self, model: str) -> None:
        super().__init__()
        self.backbone = load_backbone(ModelConfig(model))

    def forward(self, images: Tensor, texts: list[str], rank: int, world_size: int) -> Tensor:
        image_features = F.normalize(self.backbone.embed_image(images), dim=-1)
        text_features = F.normalize(self.backbone.embed_text(texts), dim=-1)
        return contrastive_loss(image_features, text_features, self.backbone.logit_scale, rank, world_size)


def differentiate(model: str, rank: int, world_size: int) -> dict[str, Any]:
    """The loss and its gradients, with every `world_size`-th pair from `rank` on, on this process."""
    step = Step(model)
    module = DistributedDataParallel(step) if world_size > 1 else step
    loss = module(pixels()[rank::world_size], TEXTS[rank::world_size], rank, world_size)
    loss.backward()
    gradients = {name: parameter.grad for name, parameter in step.named_parameters()}
    return {"loss": loss.detach(), "gradients": gradients}


def fit(model: str, rank: int, world_size: int, folder: Path) -> dict[str, Any]:
    """The weights after three steps of Lightning's Trainer."""
    module = ContrastivePretraining(load_backbone(ModelConfig(model)), OptimConfig(kind="sgd", lr=0.1), total_steps=3)
    batch = {"image": pixels()[rank::world_size], "text": TEXTS[rank::world_size]}
    loader: DataLoader[Any] = DataLoader([batch] * 3, batch_size=None)  # type: ignore[arg-type]
    trainer = Trainer(
        accelerator="cpu",
        strategy="ddp" if world_size > 1 else "auto",
        devices=world_size,
        max_steps=3,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        default_root_dir=folder,
    )
    trainer.fit(module, loader)
    return {"loss": trainer.callback_metrics["train/loss"], "weights": module.backbone.state_dict()}


def work(rank: int, port: int, model: str, folder: Path) -> None:
    torch.set_num_threads(1)
    environment = {
        "RANK": rank,
        "LOCAL_RANK": rank,
        "WORLD_SIZE": 2,
        "MASTER_PORT": port,
        "TORCHELASTIC_RUN_ID": "test",
    }
    os.environ.update({name: str(value) for name, value in environment.items()}, MASTER_ADDR="127.0.0.1")
    distributed.init_process_group("gloo", rank=rank, world_size=2)
    torch.save(differentiate(model, rank, 2) | {"fit": fit(model, rank, 2, folder)}, folder / f"{rank}.pt")
    if distributed.is_initialized():
        distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_equal_one(tiny_vit: str, tmp_path: Path) -> None:
    """Loss, gradients, and what three steps of training make of the weights."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(work, args=(port, tiny_vit, tmp_path), nprocs=2)
    found = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    alone = differentiate(tiny_vit, 0, 1)
    torch.testing.assert_close((found[0]["loss"] + found[1]["loss"]) / 2, alone["loss"])
    fitted = fit(tiny_vit, 0, 1, tmp_path)
    before = load_backbone(ModelConfig(tiny_vit)).state_dict()["clip.visual.proj"]
    assert (fitted["weights"]["clip.visual.proj"] - before).abs().max() > 1e-3
    for rank in range(2):
        close(found[rank]["gradients"], alone["gradients"])
        close(found[rank]["fit"]["weights"], fitted["weights"])
        torch.testing.assert_close(found[rank]["fit"]["loss"], fitted["loss"])


def close(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Equal but for the order of sums in fp32, whose error goes with a tensor's largest entries."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        rounding = 1e-5 * value.abs().max().item()
        torch.testing.assert_close(
            found[name], value, rtol=0, atol=rounding, msg=lambda text, name=name: f"{name}: {text}"
        )
