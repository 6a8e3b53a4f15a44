"""The `train` verb: fits the module of a configuration in its run folder, from where the run stands, and vaccinates."""

import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch.distributed as dist
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only

from configs.compose import Composed
from configs.errors import DataError, UserError
from configs.schema import ExperimentConfig
from configs.schema.module import NoFinetuning
from configs.schema.module import RobustFinetuning as RobustFinetuningConfig
from configs.schema.objective import Cosine, Hierarchical, Objective
from datamodules import build_datamodule
from datamodules.base import PlannedDataModule
from datamodules.classification import ClassificationDataModule
from experiments.metrics_file import MetricsFile
from experiments.runs import Run, rank
from experiments.stop import Interrupted, Stop
from experiments.tracking.mirror import Mirror, mirrored
from experiments.trainer import build_trainer
from experiments.vaccinate import BANK, vaccinate
from lightning_modules import antibodies, hierarchy
from lightning_modules.backbones import Backbone, export, load_backbone
from lightning_modules.backbones.blocks import compiled, recomputed
from lightning_modules.ema import assign
from lightning_modules.hyperbolic import fit_head
from lightning_modules.sharding import gathered

HEAD_SAMPLES = 128  # images that a hyperbolic head is fitted to before training


@dataclass(frozen=True)
class Fitted:
    """What a fit leaves behind: the trained model, the data it saw, and the seconds that this attempt took."""

    backbone: Backbone
    datamodule: PlannedDataModule
    seconds: float


def train(composed: Composed) -> int:
    """Trains, resumes, or says that there is nothing left to do. Returns the exit code."""
    run = Run.of(composed)
    if run.finished:
        _say(f"finished already: {run.folder}")
        return 0
    try:
        with run.attempt(), mirrored(run, composed.config) as mirror, run.recorded():
            run.describe(composed)
            fit(run, composed.config, mirror)
    except Interrupted as interruption:
        _say(str(interruption))
        return interruption.exit_code
    except UserError as error:
        if rank() and not isinstance(error, DataError):  # all ranks fail alike, and rank 0 says why
            return 2
        raise
    _say(f"finished: {run.folder} holds the model (model/), metrics.csv and the configuration")
    return 0


def fit(run: Run, config: ExperimentConfig, mirror: Mirror) -> Fitted:
    """Trains up to `trainer.steps`, from the run's checkpoint where there is one, vaccinates where that is wanted, and
    exports the model to `run.model`.

    Raises:
        Interrupted: after a signal or at the end of the wall time, once the step is finished and saved.
        TrainingError: a loss or weights that are not finite; a checkpoint that can't be written.
        CheckpointError: a checkpoint that is damaged or another configuration's.
    """
    began = time.perf_counter()
    validated = config.evaluation.validation_samples
    datamodule = build_datamodule(config.data, config.seed, config.trainer.accumulate, validated)
    datamodule.prepare_data()  # now, since the module wants the names of the classes; Lightning's call finds it done
    backbone = load_backbone(config.model)
    backbone.immunity = None  # of another training, where there is one
    if (
        config.vaccination is not None
    ):  # once now: after the training would be late to learn that the bank can't be read
        antibodies.build(
            config.antibodies[config.vaccination.bank], _labelled(datamodule).class_names, config.vaccination.bank
        )
    mirror.note(manifest_digest=datamodule.digest)
    if not isinstance(config.module, NoFinetuning):
        backbone = _train(run, config, backbone, datamodule, mirror)
    if config.vaccination is not None:
        backbone.immunity = vaccinate(run, config, backbone, _labelled(datamodule))
        mirror.bank(run.folder / BANK, config.vaccination.bank)
    _export(backbone, run.model)
    mirror.exported()
    if dist.is_initialized():
        dist.barrier()  # the other ranks may want to read it next
    return Fitted(backbone, datamodule, time.perf_counter() - began)


def _labelled(datamodule: PlannedDataModule) -> ClassificationDataModule:
    assert isinstance(datamodule, ClassificationDataModule), "the configuration allows no other"
    return datamodule


def _train(
    run: Run, config: ExperimentConfig, backbone: Backbone, datamodule: PlannedDataModule, mirror: Mirror
) -> Backbone:
    module = build_module(config, backbone.channels_last(), datamodule)
    trainer = build_trainer(config, run, run.stop, [MetricsFile(run.metrics), mirror])
    with ExitStack() as ways:
        if config.trainer.gradient_checkpointing:
            ways.enter_context(recomputed(backbone.visual))
        if config.trainer.compile != "none":
            ways.enter_context(compiled(backbone.visual, trainer.strategy.root_device))
        _fit(trainer, module, datamodule, run, run.stop)
    return _whole(backbone, config) if config.trainer.strategy == "fsdp" else backbone


def _whole(backbone: Backbone, config: ExperimentConfig) -> Backbone:
    """A model as it was loaded, with the weights of one that was shared out."""
    whole = load_backbone(config.model).channels_last()
    assign(dict(whole.clip.state_dict()), {name: gathered(value) for name, value in backbone.clip.state_dict().items()})
    whole.hyperbolic, whole.immunity = backbone.hyperbolic, backbone.immunity
    return whole.cpu()


def build_module(config: ExperimentConfig, backbone: Backbone, datamodule: PlannedDataModule) -> LightningModule:
    """The LightningModule of a configuration."""
    if isinstance(config.module, RobustFinetuningConfig):
        from lightning_modules.robust_finetuning import RobustFinetuning

        datamodule = _labelled(datamodule)
        forest = hierarchy.build(config.hierarchy, datamodule.class_names, datamodule.manifest.trees)
        datamodule.trees = {tree.name: tree.to_dict() for tree in forest.trees}
        _prepare_head(config.module.objective, backbone, datamodule)
        return RobustFinetuning(
            backbone,
            config.module.objective,
            config.attack,
            config.optim,
            total_steps=config.trainer.steps,
            forest=_trained(forest, config.module.objective),
            templates=datamodule.templates,
            seed=config.seed,
            log_every=config.trainer.log_every,
            validation_attack=config.evaluation.validation_attack,
            compiled=config.trainer.compile != "none",
        )
    from lightning_modules.pretraining import ContrastivePretraining

    return ContrastivePretraining(backbone, config.optim, config.trainer.steps)


def _trained(forest: hierarchy.Forest, objective: Objective) -> hierarchy.Forest:
    """The trees that the objective trains with."""
    trees = objective.trees if isinstance(objective, Hierarchical) else None
    return forest if trees is None else forest.only(trees)


def _prepare_head(objective: Objective, backbone: Backbone, datamodule: ClassificationDataModule) -> None:
    """Gives the model the head that the objective trains, fitted to images that every rank reads alike; a model that
    comes with one keeps it."""
    if not isinstance(objective, Hierarchical):
        return
    if isinstance(objective.geometry, Cosine):
        backbone.hyperbolic = None
    elif backbone.hyperbolic is None:
        batch = datamodule.sample(datamodule.config.train_split, HEAD_SAMPLES)
        names, templates = datamodule.class_names, datamodule.templates
        backbone.hyperbolic = fit_head(backbone, objective.geometry, batch["image"][batch["valid"]], names, templates)


def _fit(trainer: Trainer, module: LightningModule, datamodule: PlannedDataModule, run: Run, stop: Stop) -> None:
    resume = run.checkpoint if run.checkpoint.exists() else None
    try:
        with stop.postponed():
            trainer.fit(module, datamodule=datamodule, ckpt_path=resume, weights_only=True)
    except Interrupted:
        run.report(step=trainer.global_step)
        raise
    except UserError:
        raise
    except BaseException as error:
        # A second Ctrl-C, or a SIGTERM that reached the loader's workers as well, cuts the step short.
        if stop.signal_number:
            raise stop.interruption(trainer.global_step, run.checkpoint) from error
        raise


@rank_zero_only
def _export(backbone: Backbone, folder: Path) -> None:
    export(backbone, folder)


@rank_zero_only
def _say(line: str) -> None:
    print(line, file=sys.stderr)
