"""Vaccination on cached embeddings: trains the adapter of an Immunity, and nothing else."""

from functools import lru_cache

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from configs.schema.module import OptimConfig
from configs.schema.vaccination import VaccinationConfig
from lightning_modules.attacks import noise
from lightning_modules.features import Features
from lightning_modules.open_world.immunity import Immunity
from lightning_modules.open_world.vaccine import Parts, vaccination_loss, worst_embeddings
from lightning_modules.optimisation import build_optimizer

Batch = dict[str, Tensor]


class EmbeddingBatches(Dataset[Batch]):
    """All batches of all epochs, one after the other, as one rank reads them: each epoch takes every sample at most
    once, in an order that depends on (seed, epoch) alone, and leaves out what fills no batch.

    Args:
        places: int64 (M,), the samples that are trained on.
        batch_size: over all ranks; no larger than the samples allow.
    """

    def __init__(
        self, features: Features, places: Tensor, *, batch_size: int, epochs: int, seed: int, rank: int, world: int
    ) -> None:
        self.features, self.places, self.seed = features, places, seed
        self.local = max(1, min(batch_size, len(places)) // world)
        self.first, self.batch_size = rank * self.local, self.local * world
        self.batches = len(places) // self.batch_size
        self.epochs = epochs
        self._order = lru_cache(maxsize=1)(self._shuffled)

    def __len__(self) -> int:
        return self.batches * self.epochs

    def __getitem__(self, step: int) -> Batch:
        epoch, batch = divmod(step, self.batches)
        start = batch * self.batch_size + self.first
        chosen = self._order(epoch)[start : start + self.local].sort().values  # neighbours on the disk
        return {"embedding": self.features.rows(chosen), "label": self.features.labels[chosen]}

    def _shuffled(self, epoch: int) -> Tensor:
        return self.places[noise.derive(self.seed, epoch, torch.arange(len(self.places))).argsort()]


class Immunisation(LightningModule):
    """Trains the adapter under `Trainer.fit`, in one Lightning epoch that holds all of the configuration's.

    The loss is computed in float32 whatever the Trainer's precision, and is the mean over all ranks' samples. Nothing
    is drawn from a global generator, so that a seed fixes the result; an interrupted vaccination starts again.
    """

    def __init__(
        self,
        immunity: Immunity,
        config: VaccinationConfig,
        features: Features,
        places: Tensor,
        margin: float,
        seed: int,
    ) -> None:
        """
        Args:
            immunity: its adapter is trained in place.
            features: of the training split.
            places: int64 (M,), the samples that are trained on.
            margin: the cosine beyond which an antibody pushes.
        """
        super().__init__()
        self.immunity, self.config, self.margin, self.seed = immunity, config, margin, seed
        self._features, self._places = features, places

    def train_dataloader(self) -> DataLoader[Batch]:
        """Batches of this rank."""
        return DataLoader(self._batches(), batch_size=None, shuffle=False)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW on the adapter, and a half cosine over all steps."""
        optim = OptimConfig(kind="adamw", lr=self.config.lr, weight_decay=self.config.weight_decay)
        parameters = self.immunity.adapter.named_parameters()
        optimizer, schedule = build_optimizer(parameters, optim, len(self._batches()))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss on a batch, or on the worst embeddings near it."""
        embeddings, labels = batch["embedding"], batch["label"]
        if self.config.adversarial is not None:
            embeddings = worst_embeddings(
                lambda moved: self._parts(moved, labels)["loss"], embeddings, self.config.adversarial
            )
        parts = self._parts(embeddings, labels)
        self.log_dict({"vaccination/pull": parts["pull"], "vaccination/push": parts["push"]}, batch_size=len(labels))
        return parts["loss"]

    def _parts(self, embeddings: Tensor, labels: Tensor) -> Parts:
        with torch.autocast(embeddings.device.type, enabled=False):
            return vaccination_loss(
                self.immunity,
                embeddings,
                labels,
                margin=self.margin,
                weight=self.config.push_weight,
                pairing=self.config.push,
            )

    def _batches(self) -> EmbeddingBatches:
        return EmbeddingBatches(
            self._features,
            self._places,
            batch_size=self.config.batch_size,
            epochs=self.config.epochs,
            seed=self.seed,
            rank=self.trainer.global_rank,
            world=self.trainer.world_size,
        )
