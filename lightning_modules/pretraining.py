"""Contrastive image-text pretraining, from random weights or from a model's own."""

from collections.abc import Callable
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from open_clip.loss import ClipLoss
from torch import Tensor
from torch.optim import Optimizer
from torchmetrics import MeanMetric

from configs.schema.module import OptimConfig
from lightning_modules.backbones.backbone import Backbone
from lightning_modules.optimisation import build_optimizer

Batch = dict[str, Any]


class ContrastivePretraining(L.LightningModule):
    """Trains both towers so that each picture finds its caption and each caption its picture, among all ranks' samples.

    The loss is open_clip's `ClipLoss` (Radford et al. 2021, figure 3). It takes every other caption of the batch for a
    negative, the same words too: feed batches whose captions are mostly distinct. Batch norm sees its own rank's
    samples; `Trainer(sync_batchnorm=True)` joins them on GPUs.

    Batches: `image` float (B, 3, H, W) in [0, 1]; `text` B captions; `valid` bool (B,) when validating.
    """

    def __init__(self, backbone: Backbone, optim: OptimConfig, total_steps: int) -> None:
        super().__init__()
        self.backbone = backbone.channels_last().train()  # Lightning leaves the mode as it finds it
        self.optim = optim
        self.total_steps = total_steps
        self.validation_loss = MeanMetric()

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """The loss of the global batch as this rank sees it: the mean over ranks is the loss of the joined batch."""
        images, captions = self._features(batch["image"], batch["text"])
        scale = self.backbone.logit_scale
        loss = contrastive_loss(images, captions, scale, self.trainer.global_rank, self.trainer.world_size)
        report = {
            "train/loss": loss.detach(),
            "train/batch_accuracy": batch_accuracy(images.detach(), captions.detach(), batch["text"]),
            "train/logit_scale": scale.detach(),
        }
        self.log_dict(report, batch_size=len(images), sync_dist=self.trainer.world_size > 1)
        return loss

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        """The loss of this rank's valid samples; it depends on the batch size per rank, as contrastive losses do."""
        valid = batch["valid"]
        texts = [text for text, keep in zip(batch["text"], valid.tolist(), strict=True) if keep]
        if texts:
            images, captions = self._features(batch["image"][valid], texts)
            self.validation_loss.update(contrastive_loss(images, captions, self.backbone.logit_scale), len(texts))
        self.log("val/loss", self.validation_loss, on_epoch=True, batch_size=len(valid))

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer, schedule = build_optimizer(self.backbone.named_parameters(), self.optim, self.total_steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def optimizer_step(
        self,
        epoch: int,
        batch_idx: int,
        optimizer: Optimizer | LightningOptimizer,
        optimizer_closure: Callable[[], Any] | None = None,
    ) -> None:
        """Caps the logit scale with each step, so that every checkpoint holds a capped one."""
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        self.backbone.clamp_logit_scale()

    def _features(self, pixels: Tensor, texts: list[str]) -> tuple[Tensor, Tensor]:
        images, captions = self.backbone.embed_image(pixels), self.backbone.embed_text(texts)
        return F.normalize(images, dim=-1), F.normalize(captions, dim=-1)


def contrastive_loss(
    images: Tensor, captions: Tensor, logit_scale: Tensor, rank: int = 0, world_size: int = 1
) -> Tensor:
    """The mean cross-entropy of B pictures among all ranks' captions, and of B captions among all ranks' pictures.

    Args:
        images: unit features (B, D) of this rank; B is the same on every rank.
        captions: unit features (B, D) of this rank, row i belonging to picture i.
        logit_scale: 0-dim.
        rank: this process's, among `world_size` in the default group.

    Returns:
        A scalar in fp32. Gradients reach the other ranks' features, so that averaging weights' gradients over ranks,
        as DistributedDataParallel does, gives the gradient of the joined batch.
    """
    loss = ClipLoss(local_loss=True, gather_with_grad=True, rank=rank, world_size=world_size)
    # Logits up to 100 have steps of 0.5 in bf16.
    with torch.autocast(images.device.type, enabled=False):
        result: Tensor = loss(images.float(), captions.float(), logit_scale.float())
    return result


def batch_accuracy(images: Tensor, captions: Tensor, texts: list[str]) -> Tensor:
    """The share of B pictures whose nearest caption of the batch has their own words; features (B, D), unit norm."""
    words = {text: index for index, text in enumerate(texts)}
    own = torch.tensor([words[text] for text in texts], device=images.device)
    nearest = (images @ captions.T).argmax(dim=1)
    return (own[nearest] == own).float().mean()
