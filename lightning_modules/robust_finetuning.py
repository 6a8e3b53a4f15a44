"""Adversarial fine-tuning of a CLIP image tower: any objective, any attack."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torchmetrics import MeanMetric

from configs.errors import CheckpointError
from configs.schema.attack import APGD, PGD, AutoAttack
from configs.schema.attack import Attack as AttackConfig
from configs.schema.module import Objective, OptimConfig
from lightning_modules import attacks, objectives
from lightning_modules.attacks import Adversarial, Attack, FallenFn, LossFn, misclassified, noise
from lightning_modules.attacks.losses import LOSSES, cross_entropy
from lightning_modules.backbones import Backbone, class_features, reference_copy
from lightning_modules.backbones.freezing import Reference, freeze_text
from lightning_modules.optimisation import build_optimizer

Batch = dict[str, Any]


class Adversary(NamedTuple):
    """An attack in training.

    attack  None leaves the pixels alone.
    loss    on logits and labels; None is the objective's own inner loss, on embeddings.
    fallen  set where an attack needs to know who stands; without it every sample gets the whole budget.
    """

    attack: Attack | None
    loss: LossFn | None = None
    fallen: FallenFn | None = None


def adversary(config: AttackConfig) -> Adversary:
    """The adversary of a configuration. A sequence stops at a sample's first success, every other attack goes on."""
    attack = attacks.build(config)
    if isinstance(config, PGD | APGD):
        return Adversary(attack, None if config.loss == "objective" else LOSSES[config.loss])
    return Adversary(attack, cross_entropy, misclassified if isinstance(config, AutoAttack) else None)


class RobustFinetuning(LightningModule):
    """Trains the image tower on images that an adversary made for it (Madry et al. 2018, eq. 2.1).

    Shapes: B images, D embedding dimensions, K classes.

    The image tower stays in eval mode: the function that is attacked is the one that is trained, batch normalisation
    keeps the statistics of pretraining, and no statistics differ between ranks. The text tower and the logit scale are
    frozen; the class features are encoded once per run. The attack asks for the gradient of the pixels alone, through
    the bare image tower, so that no parameter gradient is computed and DDP does not see it. The tower's weights keep
    `requires_grad` meanwhile: frozen weights send `nn.MultiheadAttention` down a slower path.

    Random starts depend on (seed, step, index of the sample in its split) only, so neither the number of ranks, nor
    accumulation, nor a resume changes them.
    """

    def __init__(
        self,
        backbone: Backbone,
        objective: Objective,
        attack: AttackConfig,
        optim: OptimConfig,
        *,
        total_steps: int,
        class_names: Sequence[str],
        templates: Sequence[str],
        seed: int,
        log_every: int = 1,
        validation_attack: AttackConfig | None = None,
    ) -> None:
        """
        Args:
            total_steps: steps of the optimiser that the schedule covers.
            class_names: K names, in the order of the labels.
            templates: prompts with `{c}` where the name goes.
            log_every: steps between two reports.
            validation_attack: what robust accuracy means in validation; None is the training attack.
        """
        super().__init__()
        self.strict_loading = False  # checkpoints hold what is trained; `on_load_checkpoint` checks it
        freeze_text(backbone)
        self.backbone = backbone.eval()
        self.objective_config = objective
        self.adversary = adversary(attack)
        self.validation_adversary = adversary(validation_attack or attack)
        self.optim = optim
        self.total_steps = total_steps
        self.class_names = tuple(class_names)
        self.templates = tuple(templates)
        self.seed = seed
        self.log_every = log_every
        self.val_clean_accuracy = MeanMetric()
        self.val_robust_accuracy = MeanMetric()
        self._reference: Reference | None = None
        self._window: list[dict[str, Tensor]] = []

    def train(self, mode: bool = True) -> "RobustFinetuning":
        """Sets the mode of everything but the backbone, which stays in eval mode."""
        super().train(mode)
        self.backbone.eval()
        return self

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Trains the image tower, with the schedule over `total_steps`."""
        optimizer, schedule = build_optimizer(self.backbone.named_parameters(), self.optim, self.total_steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def setup(self, stage: str) -> None:
        """Keeps the original, while a checkpoint is not yet restored and the weights' precision not yet changed."""
        self._reference = reference_copy(self.backbone)

    def on_fit_start(self) -> None:
        """Encodes the classes, once, and drops the original where the objective makes no use of it."""
        self.text_features = class_features(self.backbone, self.class_names, self.templates).float()
        scale = self.backbone.logit_scale.detach().float()
        self.objective = objectives.build(self.objective_config, self.text_features, scale)
        if not self.objective.needs_reference:
            self._reference = None

    def on_before_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Drops padding while the batch is still on the host, where that costs no synchronisation."""
        return without_padding(batch)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The objective's loss on adversarial images; one forward and one backward beyond the attack's."""
        pixels, labels = batch["image"], batch["label"]
        target = self.objective.target(labels, self._reference(pixels) if self._reference else None)
        adversarial = self._attack(self.adversary, pixels, labels, target, batch["index"], self.global_step)
        embeddings = self.backbone.embed_image(adversarial.pixels)
        clean = self.backbone.embed_image(pixels) if self.objective.needs_clean else None
        loss, parts = self.objective.outer(embeddings, clean, target)
        if self._reports:
            found = {"loss": loss, **{f"loss_{name}": part for name, part in parts.items()}}
            self._report(found | self._describe(adversarial, pixels, embeddings, clean, labels), batch_idx)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Accuracy on clean images, and on the validation attack's."""
        pixels, labels = batch["image"], batch["label"]
        if len(labels):
            target = self.objective.target(labels, self._reference(pixels) if self._reference else None)
            adversarial = self._attack(self.validation_adversary, pixels, labels, target, batch["index"], step=0)
            self.val_clean_accuracy.update(self._correct(self.backbone.embed_image(pixels), labels))
            self.val_robust_accuracy.update(self._correct(self.backbone.embed_image(adversarial.pixels), labels))
        found = {"val/clean_accuracy": self.val_clean_accuracy, "val/robust_accuracy": self.val_robust_accuracy}
        self.log_dict(found, on_epoch=True, batch_size=len(labels))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keeps what is trained: the rest comes from the model that the run starts from."""
        checkpoint["state_dict"] = {name: checkpoint["state_dict"][name] for name in self._trained}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Raises CheckpointError where the weights are another model's."""
        ours, found = self.state_dict(), checkpoint["state_dict"]
        strange = [name for name in self._trained if name not in found or found[name].shape != ours[name].shape]
        strange += sorted(set(found) - set(self._trained))
        if strange:
            raise CheckpointError(
                f"the checkpoint holds another model's weights ({strange[0]} does not fit); resume with the model that "
                "wrote it, or remove the checkpoint to start anew"
            )

    @property
    def _trained(self) -> list[str]:
        return [name for name, parameter in self.named_parameters() if parameter.requires_grad]

    def _attack(
        self, adversary: Adversary, pixels: Tensor, labels: Tensor, target: Tensor, index: Tensor, step: int
    ) -> Adversarial:
        if adversary.attack is None:
            nothing = pixels.new_zeros(len(pixels))
            return Adversarial(pixels, nothing, nothing.bool())
        seeds = noise.derive(self.seed, step, index)
        if adversary.loss is None:
            return adversary.attack(self.backbone.embed_image, pixels, target, self.objective.inner, seeds)
        return adversary.attack(self._classify, pixels, labels, adversary.loss, seeds, adversary.fallen)

    def _classify(self, pixels: Tensor) -> Tensor:
        return self._logits(self.backbone.embed_image(pixels))

    def _logits(self, embeddings: Tensor) -> Tensor:
        """Zero-shot logits (B, K) of embeddings (B, D), fp32."""
        with torch.autocast(embeddings.device.type, enabled=False):
            cosines = F.normalize(embeddings.float(), dim=-1) @ self.text_features.T
        return self.backbone.logit_scale.detach().float() * cosines

    @property
    def _reports(self) -> bool:
        """Whether the step that this batch belongs to is reported."""
        return (self.global_step + 1) % self.log_every == 0

    @torch.no_grad()
    def _describe(
        self, adversarial: Adversarial, pixels: Tensor, embeddings: Tensor, clean: Tensor | None, labels: Tensor
    ) -> dict[str, Tensor]:
        """What a batch tells beside the loss. The clean forward that may be missing is run after the training forward:
        before it, autocast would cache weights without their gradient."""
        clean = self.backbone.embed_image(pixels) if clean is None else clean
        moved = (adversarial.pixels - pixels.float()).flatten(1)
        return {
            "robust_accuracy": self._correct(embeddings, labels).mean(),
            "clean_accuracy": self._correct(clean, labels).mean(),
            "zero_gradient": adversarial.zero_gradient.mean(),
            "perturbation_linf_255": moved.abs().amax() * 255,
            "perturbation_l2": moved.norm(dim=1).mean(),
        }

    def _correct(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        return (self._logits(embeddings).argmax(dim=1) == labels).float()

    def _report(self, found: Mapping[str, Tensor], batch_idx: int) -> None:
        """Logs the mean over the batches of an optimiser's step and over ranks (whose batches are of one size)."""
        self._window.append({name: value.detach().float() for name, value in found.items()})
        if (batch_idx + 1) % self.trainer.accumulate_grad_batches == 0:
            window, self._window = self._window, []
            means = {f"train/{name}": torch.stack([part[name] for part in window]).mean() for name in found}
            self.log_dict(means, sync_dist=self.trainer.world_size > 1)


def without_padding(batch: Batch) -> Batch:
    """The batch without the samples whose `valid` is False."""
    valid: Tensor = batch["valid"]
    if bool(valid.all()):
        return batch
    kept = valid.nonzero().squeeze(1)
    rows = kept.tolist()
    return {
        name: values[kept] if isinstance(values, Tensor) else [values[row] for row in rows]
        for name, values in batch.items()
    }
