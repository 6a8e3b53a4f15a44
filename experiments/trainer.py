"""Lightning's Trainer for a run."""

import logging
import warnings
from collections.abc import Sequence
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.strategies import DDPStrategy, Strategy

from configs.schema import ExperimentConfig
from configs.schema.trainer import TrainerConfig
from experiments.checkpoints import CheckpointFile, Checkpoints
from experiments.open_world_bar import OpenWorldBar
from experiments.probe_bar import ProbeBar
from experiments.recorder import Recorder, Sink, StepSeed
from experiments.runs import Run
from experiments.superclass_bar import SuperclassBar
from experiments.train_bar import Bar
from experiments.watch import Stop, Watch

_NOISE = (
    r".*does not have many workers.*",
    r".*module\(s\) in eval mode at the start of training.*",  # on purpose: see RobustFinetuning
    r".*The `srun` command is available on your system.*",
    r".*Checkpoint directory .* exists and is not empty.*",
    r".*isinstance\(treespec, LeafSpec\).*",
    r".*have overridden `on_before_batch_transfer` in `LightningModule`.*",  # the datamodule has another hook
)


def build_trainer(experiment: ExperimentConfig, run: Run, stop: Stop, sinks: Sequence[Sink]) -> Trainer:
    """The Trainer of a run: its devices and precision, its files, its signals. Metrics go to the sinks."""
    config = experiment.trainer
    return Trainer(
        **_machine(config),
        max_steps=config.steps,
        max_epochs=-1,
        accumulate_grad_batches=config.accumulate,
        gradient_clip_val=config.clip_norm,
        val_check_interval=config.validate_every * config.accumulate or None,
        check_val_every_n_epoch=None,
        limit_val_batches=1.0 if config.validate_every else 0,
        num_sanity_val_steps=0,
        deterministic=config.deterministic or None,
        callbacks=_callbacks(config, run, stop, sinks),
        plugins=[CheckpointFile(run.config_hash)],
        default_root_dir=run.folder,
    )


def build_tester(experiment: ExperimentConfig, label: str) -> Trainer:
    """A Trainer that measures: the run's devices and precision, nothing written."""
    config = experiment.trainer
    return Trainer(
        **_machine(config),
        callbacks=[ProbeBar(label), SuperclassBar(label), OpenWorldBar(label)],
    )


def _machine(config: TrainerConfig) -> dict[str, Any]:
    """What every Trainer of this project has: the configured devices, and none of Lightning's own extras."""
    quiet()
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    return {
        "accelerator": config.accelerator,
        "devices": config.devices,
        "num_nodes": config.nodes,
        "strategy": _strategy(config),
        "precision": config.precision,
        "inference_mode": False,  # attacks need gradients
        "use_distributed_sampler": False,  # the datamodule slices by rank
        "logger": False,  # see Recorder
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }


def quiet() -> None:
    """Silences what Lightning says about itself; what concerns a run, the run says."""
    for name in ("lightning.pytorch", "lightning.fabric", "lightning"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in _NOISE:
        warnings.filterwarnings("ignore", message)


def _strategy(config: TrainerConfig) -> Strategy | Literal["auto"]:
    if config.devices * config.nodes == 1 and config.strategy == "auto":
        return "auto"
    # Every trained parameter is used in each step; nothing that is trained with is a buffer.
    return DDPStrategy(find_unused_parameters=False, gradient_as_bucket_view=True, broadcast_buffers=False)


def _callbacks(config: TrainerConfig, run: Run, stop: Stop, sinks: Sequence[Sink]) -> list[Callback]:
    """In the order in which they see the end of a batch: a bad step is neither logged nor saved."""
    return [
        StepSeed(run.seed),
        Watch(stop, run.checkpoint, config.log_every, config.checkpoint_every),
        Recorder(run, config.log_every, sinks),
        Checkpoints(run.checkpoint, config.checkpoint_every, stop),
        Bar(run.name, config.log_every),
    ]
