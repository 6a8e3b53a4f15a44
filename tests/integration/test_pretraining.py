"""Contrastive pretraining under Lightning's Trainer."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from configs.schema.model import ModelConfig
from configs.schema.module import OptimConfig
from lightning_modules.backbones import Backbone, load_backbone
from lightning_modules.pretraining import ContrastivePretraining, batch_accuracy

Batch = dict[str, Any]
COLOURS = ("red", "green", "blue", "yellow", "white", "black", "pink", "teal")


def batch(count: int = 8, padding: int = 0) -> Batch:
    """Noisy patches of one colour each, with its name."""
    generator = torch.Generator().manual_seed(0)
    means = torch.rand(len(COLOURS), 3, 1, 1, generator=generator)
    images = (means + 0.05 * torch.randn(len(COLOURS), 3, 32, 32, generator=generator)).clamp(0, 1)[:count]
    return {
        "image": torch.cat([images, torch.zeros(padding, 3, 32, 32)]),
        "text": [f"a {colour} patch" for colour in COLOURS[:count]] + [""] * padding,
        "valid": torch.arange(count + padding) < count,
    }


def loader(*batches: Batch) -> DataLoader[Batch]:
    return DataLoader(list(batches), batch_size=None)  # type: ignore[arg-type]


def trainer(folder: Path, steps: int, **options: Any) -> Trainer:
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    return Trainer(accelerator="cpu", devices=1, max_steps=steps, default_root_dir=folder, **(quiet | options))


@pytest.fixture
def backbone(tiny_resnet: str) -> Backbone:
    return load_backbone(ModelConfig(tiny_resnet))


def test_it_learns_pairs(backbone: Backbone, tmp_path: Path) -> None:
    """All pairs of one batch, by heart; batch normalisation gathers statistics on the way."""
    module = ContrastivePretraining(backbone, OptimConfig(lr=3e-3, warmup_steps=3), total_steps=40)
    first = trainer(tmp_path, 1)
    first.fit(module, loader(batch()))
    fit = trainer(tmp_path, 40)
    fit.fit(module, loader(batch()))
    assert fit.callback_metrics["train/loss"] < 0.3 < first.callback_metrics["train/loss"]
    assert fit.callback_metrics["train/batch_accuracy"] == 1
    norms = [part for part in backbone.modules() if isinstance(part, nn.BatchNorm2d)]
    assert norms
    assert all(norm.num_batches_tracked == 41 for norm in norms)


def test_every_checkpoint_holds_a_capped_scale(backbone: Backbone, tmp_path: Path) -> None:
    nn.init.constant_(backbone.clip.get_parameter("logit_scale"), 6.0)
    module = ContrastivePretraining(backbone, OptimConfig(lr=1e-6), total_steps=2)
    fit = trainer(tmp_path, 1, enable_checkpointing=True)
    fit.fit(module, loader(batch()))
    fit.save_checkpoint(tmp_path / "last.ckpt")
    weights = torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"]
    assert weights["backbone.clip.logit_scale"].exp() == pytest.approx(100)


def test_the_rate_follows_the_schedule_under_accumulation(backbone: Backbone, tmp_path: Path) -> None:
    """Steps are the optimiser's: after all of them the cosine is at its end."""
    module = ContrastivePretraining(backbone, OptimConfig(lr=1e-3), total_steps=3)
    fit = trainer(tmp_path, 3, accumulate_grad_batches=2)
    fit.fit(module, loader(*[batch()] * 6))
    assert fit.global_step == 3
    assert fit.optimizers[0].param_groups[0]["lr"] == pytest.approx(0, abs=1e-12)


@torch.no_grad()
def test_padding_counts_for_nothing_in_validation(backbone: Backbone, tmp_path: Path) -> None:
    module = ContrastivePretraining(backbone, OptimConfig(), total_steps=1)

    def loss(*batches: Batch) -> Tensor:
        [result] = trainer(tmp_path, 1).validate(module, loader(*batches), verbose=False)
        return torch.tensor(result["val/loss"])

    torch.testing.assert_close(loss(batch(8), batch(5, padding=3)), loss(batch(8), batch(5)))
    torch.testing.assert_close(loss(batch(8), batch(0, padding=4)), loss(batch(8)))
    weighted = (8 * loss(batch(8)) + 5 * loss(batch(5))) / 13
    torch.testing.assert_close(loss(batch(8), batch(5)), weighted)


def test_a_caption_that_repeats_is_no_mistake() -> None:
    captions = torch.eye(4)[[0, 1, 0, 2]]
    texts = ["cat", "dog", "cat", "cow"]
    assert batch_accuracy(captions, captions, texts) == 1
    assert batch_accuracy(captions[[1, 1, 0, 3]], captions, texts) == 0.75


def test_mixed_precision_computes_the_loss_in_full(backbone: Backbone, tmp_path: Path) -> None:
    module = ContrastivePretraining(backbone, OptimConfig(lr=1e-4), total_steps=1)
    fit = trainer(tmp_path, 1, precision="bf16-mixed")
    fit.fit(module, loader(batch()))
    assert fit.callback_metrics["train/loss"].dtype == torch.float32
    assert all(parameter.isfinite().all() for parameter in backbone.parameters())


def test_its_checkpoint_loads_as_weights(backbone: Backbone, tiny_resnet: str, tmp_path: Path) -> None:
    module = ContrastivePretraining(backbone, OptimConfig(lr=1e-2), total_steps=1)
    fit = trainer(tmp_path, 1)
    fit.fit(module, loader(batch()))
    fit.save_checkpoint(tmp_path / "last.ckpt")
    loaded = load_backbone(ModelConfig(tiny_resnet, checkpoint=str(tmp_path / "last.ckpt")))
    torch.testing.assert_close(loaded.clip.state_dict(), backbone.clip.state_dict(), rtol=0, atol=0)
