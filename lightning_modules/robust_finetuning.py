"""Adversarial fine-tuning of a CLIP image tower: any objective, any attack."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torchmetrics import MeanMetric

from configs.errors import CheckpointError
from configs.schema.attack import Attack as AttackConfig
from configs.schema.module import OptimConfig
from configs.schema.objective import Hierarchical, Objective
from lightning_modules import objectives, ranks
from lightning_modules.adversary import adversary, untouched
from lightning_modules.attacks import Adversarial, noise
from lightning_modules.attacks.losses import cross_entropy
from lightning_modules.backbones import Backbone, reference_copy
from lightning_modules.backbones.freezing import Reference, freeze_text, frozen
from lightning_modules.backbones.text_tower import TextTower
from lightning_modules.backbones.tokens import embed_tokens
from lightning_modules.class_texts import ClassTexts
from lightning_modules.heads import classify
from lightning_modules.hierarchy import Forest
from lightning_modules.objectives import Embedded, Views
from lightning_modules.optimisation import build_optimizer
from lightning_modules.sharding import shard

Batch = dict[str, Any]


class RobustFinetuning(LightningModule):
    """Trains the image tower on images that an adversary made for it (Madry et al. 2018, eq. 2.1).

    Shapes: B images, D embedding dimensions, K classes.

    The image tower stays in eval mode: the function that is attacked is the one that is trained, batch normalisation
    keeps the statistics of pretraining, and no statistics differ between ranks. The logit scale of cosines and the text
    tower below its projection are frozen; prompts are encoded once per run. A hierarchical objective may train the
    projection, and trains the scales of a hyperbolic head. The attack asks for the gradient of the pixels alone,
    through the bare image tower, so that no parameter gradient is computed and DDP does not see it. The tower's weights
    keep `requires_grad` meanwhile: frozen weights send `nn.MultiheadAttention` down a slower path.

    Validation attacks the classification whatever the objective's own adversary raises, so that robust accuracy means
    the same for all of them.

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
        forest: Forest,
        templates: Sequence[str],
        seed: int,
        log_every: int = 1,
        validation_attack: AttackConfig | None = None,
        compiled: bool = False,
    ) -> None:
        """
        Args:
            total_steps: steps of the optimiser that the schedule covers.
            forest: of class trees; its K leaves are the classes, in the order of the labels.
            templates: prompts with `{c}` where the name goes.
            log_every: steps between two reports.
            validation_attack: what robust accuracy means in validation; None is the training attack.
            compiled: whether torch.compile runs the image tower. Its backward gives the gradient of all that requires
                one, asked for or not, so that attacks then freeze the weights.
        """
        super().__init__()
        self.strict_loading = False  # checkpoints hold what is trained; `on_load_checkpoint` checks it
        choose_trained(backbone, objective)
        self.backbone = backbone.eval()
        self.objective_config = objective
        self.adversary = adversary(attack)
        self.validation_adversary = adversary(validation_attack or attack)
        self.optim = optim
        self.total_steps = total_steps
        self.forest = forest
        self.templates = tuple(templates)
        self.seed = seed
        self.log_every = log_every
        self.compiled = compiled
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
        """Trains what requires a gradient, with the schedule over `total_steps`."""
        factor = self.objective_config.text_lr_factor if isinstance(self.objective_config, Hierarchical) else 1.0
        optimizer, schedule = build_optimizer(
            self.backbone.named_parameters(), self.optim, self.total_steps, {"text_projection": factor}
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def setup(self, stage: str) -> None:
        """Keeps the original, while a checkpoint is not yet restored and the weights' precision not yet changed."""
        self._reference = reference_copy(self.backbone)

    def configure_model(self) -> None:
        """Shares out the image tower where the strategy does."""
        if self.device_mesh is not None:
            shard(self.backbone.visual, self.device_mesh["data_parallel"])

    def on_fit_start(self) -> None:
        """Encodes the classes, once, and drops the original where the objective makes no use of it."""
        wordings = objectives.wordings(self.objective_config, self.forest, self.templates)
        config = self.objective_config if isinstance(self.objective_config, Hierarchical) else None
        trained = config is not None and (config.train_text or config.text_attack is not None)
        self.texts = ClassTexts(self.backbone, wordings, trained, head_trained=config is not None)
        self._lineages = self.forest.lineages.to(self.device)
        self.objective = objectives.build(self.objective_config, self.backbone.head, self.forest, self.device)
        needs = self.objective.needs
        if not (needs.reference or needs.reference_adversarial):
            self._reference = None

    def on_before_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Drops padding while the batch is still on the host, where that costs no synchronisation. A rank that has
        nothing else keeps it where the tower is shared out, since all ranks have to run it."""
        nothing = self.device_mesh is not None and not bool(batch["valid"].any())
        return batch | {"label": batch["label"].clamp_min(0)} if nothing else without_padding(batch)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The objective's loss on adversarial images; one forward and one backward beyond the attack's."""
        pixels, labels, texts = batch["image"], batch["label"], self.texts()
        reference = self._refer(pixels) if self.objective.needs.reference else None
        with self._asked():
            adversarial = self._attack_objective(batch, texts.detach(), self.global_step, reference)
        views = self._views(pixels, adversarial.pixels, reference)
        copies = labels.repeat(self.objective.needs.adversaries)
        loss, parts = self.objective.outer(views, copies, self._attack_texts(views, copies, texts))
        if self._reports:
            found = {"train/loss": loss, **{f"train/loss_{name}": part for name, part in parts.items()}}
            self._report(found | self._describe(adversarial, pixels, views, labels, texts), batch_idx)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Accuracy on clean images, and on the validation attack's."""
        pixels, labels = batch["image"], batch["label"]
        if len(labels):
            texts = self.texts()
            with self._asked():
                adversarial = self._attack_classification(batch, texts).pixels
            counts = batch["valid"].float()
            self.val_clean_accuracy.update(self._correct(self.backbone.embed_image(pixels), labels, texts), counts)
            found = self._correct(self.backbone.embed_image(adversarial), labels, texts)
            self.val_robust_accuracy.update(found, counts)
        metrics = {"val/clean_accuracy": self.val_clean_accuracy, "val/robust_accuracy": self.val_robust_accuracy}
        self.log_dict(metrics, on_epoch=True, batch_size=len(labels))

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

    def _asked(self) -> AbstractContextManager[None]:
        """Around an attack."""
        return frozen(self.backbone.visual) if self.compiled else nullcontext()

    def _attack_objective(
        self, batch: Batch, texts: Tensor, step: int, reference: Embedded | None = None
    ) -> Adversarial:
        """What the training adversary makes of a batch; of several adversaries, one batch behind the other.

        Args:
            reference: the frozen original's view of the clean images, for an objective that needs it.
        """
        needs = self.objective.needs
        pixels, labels, index = (torch.cat([batch[name]] * needs.adversaries) for name in ("image", "label", "index"))
        attack, loss, fallen = self.adversary
        if attack is None:
            return untouched(pixels)
        seeds = noise.derive(self.seed, step, index)
        if loss is not None:
            return attack(partial(self._classify, texts=texts), pixels, labels, loss, seeds, fallen)
        # With gradients, though nothing asks for them: autocast would cache the weights of a forward without.
        answers = self.backbone.embed_image(pixels).detach() if needs.answers else None
        original = None if reference is None else torch.cat([reference.pooled] * needs.adversaries)
        target = self.objective.target(labels, answers, original, texts)
        return attack(self.backbone.embed_image, pixels, target, partial(self.objective.inner, texts=texts), seeds)

    def _attack_classification(self, batch: Batch, texts: Tensor) -> Adversarial:
        """What the validation adversary makes of a batch, the same in every step."""
        attack, loss, fallen = self.validation_adversary
        if attack is None:
            return untouched(batch["image"])
        classify = partial(self._classify, texts=texts.detach())
        seeds = noise.derive(self.seed, 0, batch["index"])
        return attack(classify, batch["image"], batch["label"], loss or cross_entropy, seeds, fallen)

    def _attack_texts(self, views: Views, labels: Tensor, texts: Tensor) -> Tensor:
        """The texts, perturbed where the objective asks for it, against images that keep still."""
        config = self.objective_config
        if not isinstance(config, Hierarchical) or config.text_attack is None:
            return texts
        still = Views(
            Embedded(views.adversarial.pooled.detach()), views.clean and Embedded(views.clean.pooled.detach())
        )
        return self.texts.perturbed(
            lambda points: self.objective.outer(still, labels, points)[0],
            self._nodes_of(labels),
            config.text_attack,
            (self.seed, self.global_step),
        )

    def _nodes_of(self, labels: Tensor) -> Tensor:
        """bool (N,): the nodes of the forest that the batches of all ranks have images of."""
        places = self._lineages[:, ranks.gathered(labels)].flatten()
        return torch.zeros(self.forest.size, dtype=torch.bool, device=labels.device).index_fill_(0, places, True)

    def _views(self, pixels: Tensor, adversarial: Tensor, reference: Embedded | None) -> Views:
        needs = self.objective.needs
        return Views(
            self._embed(adversarial),
            self._embed(pixels) if needs.clean else None,
            reference,
            self._refer(adversarial) if needs.reference_adversarial else None,
        )

    def _embed(self, pixels: Tensor) -> Embedded:
        if self.objective.needs.tokens:
            return Embedded(*embed_tokens(self.backbone.visual, self.backbone.normalise(pixels)))
        return Embedded(self.backbone.embed_image(pixels))

    def _refer(self, pixels: Tensor) -> Embedded:
        assert self._reference is not None
        if self.objective.needs.tokens:
            return Embedded(*self._reference.tokens(pixels))
        return Embedded(self._reference(pixels))

    def _classify(self, pixels: Tensor, texts: Tensor) -> Tensor:
        return self._logits(self.backbone.embed_image(pixels), texts)

    def _logits(self, embeddings: Tensor, texts: Tensor) -> Tensor:
        """Zero-shot logits (B, K) of embeddings (B, D), fp32."""
        return classify(self.backbone.head, embeddings, texts[: len(self.forest.leaves)])

    @property
    def _reports(self) -> bool:
        """Whether the step that this batch belongs to is reported."""
        return (self.global_step + 1) % self.log_every == 0

    @torch.no_grad()
    def _describe(
        self, adversarial: Adversarial, pixels: Tensor, views: Views, labels: Tensor, texts: Tensor
    ) -> dict[str, Tensor]:
        """What a batch tells beside the loss. The clean forward that may be missing is run after the training forward:
        before it, autocast would cache weights without their gradient."""
        clean = self.backbone.embed_image(pixels) if views.clean is None else views.clean.pooled
        first = slice(len(pixels))  # of several adversaries
        moved = (adversarial.pixels[first] - pixels.float()).flatten(1)
        return {
            "train/robust_accuracy": self._correct(views.adversarial.pooled[first], labels, texts).mean(),
            "train/clean_accuracy": self._correct(clean, labels, texts).mean(),
            "train/zero_gradient": adversarial.zero_gradient.mean(),
            "train/perturbation_linf_255": moved.abs().amax() * 255,
            "train/perturbation_l2": moved.norm(dim=1).mean(),
            **self._depths(clean, texts),
        }

    def _depths(self, clean: Tensor, texts: Tensor) -> dict[str, Tensor]:
        """Mean norm in the ball, as a share of its radius, of each level's texts and of the images."""
        head = self.backbone.hyperbolic
        if head is None:
            return {}
        shares = head.shares(texts)
        found = {f"depth/text/{level.label}": shares[level.nodes].mean() for level in self.forest.levels}
        return found | {"depth/image/leaf": head.shares(head.images(clean)).mean()}

    def _correct(self, embeddings: Tensor, labels: Tensor, texts: Tensor) -> Tensor:
        return (self._logits(embeddings, texts).argmax(dim=1) == labels).float()

    def _report(self, found: Mapping[str, Tensor], batch_idx: int) -> None:
        """Logs the mean over the batches of an optimiser's step and over ranks (whose batches are of one size)."""
        self._window.append({name: value.detach().float() for name, value in found.items()})
        if (batch_idx + 1) % self.trainer.accumulate_grad_batches == 0:
            window, self._window = self._window, []
            means = {name: torch.stack([part[name] for part in window]).mean() for name in found}
            self.log_dict(means, sync_dist=self.trainer.world_size > 1)


def choose_trained(backbone: Backbone, objective: Objective) -> None:
    """Has the image tower trained, and what a hierarchical objective trains beside it."""
    freeze_text(backbone)
    if not isinstance(objective, Hierarchical):
        return
    if objective.train_text:
        TextTower(backbone).projection.requires_grad_(True)
    if backbone.hyperbolic is not None:
        backbone.hyperbolic.requires_grad_(True)


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
