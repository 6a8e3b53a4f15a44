"""Lightning's Trainer for a run."""

import logging
import warnings
from collections.abc import Sequence
from typing import Any, Literal

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.strategies import DDPStrategy, Strategy

from configs.errors import ConfigError
from configs.schema import ExperimentConfig
from configs.schema.trainer import TrainerConfig
from experiments.averaging import Averaging
from experiments.checkpoints import CheckpointFile, Checkpoints
from experiments.cluster import cluster
from experiments.early_stopping import EarlyStopping
from experiments.open_world_bar import OpenWorldBar
from experiments.probe_bar import ProbeBar
from experiments.recorder import Recorder, Sink, StepSeed
from experiments.runs import Run
from experiments.stop import Stop
from experiments.superclass_bar import SuperclassBar
from experiments.train_bar import Bar
from experiments.watch import Watch
from lightning_modules.precision import Bfloat16
from lightning_modules.sharded_strategy import ShardedStrategy

_NOISE = (
    r".*does not have many workers.*",
    r".*module\(s\) in eval mode at the start of training.*",  # on purpose: see RobustFinetuning
    r".*The `srun` command is available on your system.*",
    r".*Checkpoint directory .* exists and is not empty.*",
    r".*isinstance\(treespec, LeafSpec\).*",
    r".*have overridden `on_before_batch_transfer` in `LightningModule`.*",  # the datamodule has another hook
)


def build_trainer(experiment: ExperimentConfig, run: Run, stop: Stop, sinks: Sequence[Sink]) -> Trainer:
    """The Trainer of a run: its devices and precision, its files, its signals. Metrics go to the sinks.

    Raises:
        ConfigError: devices that this machine does not have.
    """
    config = experiment.trainer
    return _built(
        **_machine(config, [CheckpointFile(run.config_hash)]),
        strategy=_strategy(config),
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
        default_root_dir=run.folder,
    )


def build_tester(experiment: ExperimentConfig, label: str) -> Trainer:
    """A Trainer that measures: the run's devices and precision, whole models, nothing written. Raises as
    `build_trainer`."""
    config = experiment.trainer
    return _built(
        **_machine(config, []),
        strategy=_replicas(config),
        callbacks=[ProbeBar(label), SuperclassBar(label), OpenWorldBar(label)],
    )


def _built(**settings: Any) -> Trainer:
    try:
        return Trainer(**settings)
    except MisconfigurationException as error:
        told = " ".join(str(error).split())
        raise ConfigError(
            f"trainer.accelerator and trainer.devices do not fit this machine ({told}); set both"
        ) from error


def _machine(config: TrainerConfig, plugins: Sequence[Any]) -> dict[str, Any]:
    """What every Trainer of this project has: the configured devices, and none of Lightning's own extras."""
    quiet()
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    return {
        "accelerator": config.accelerator,
        "devices": config.devices,
        "num_nodes": config.nodes,
        "plugins": [*plugins, *cluster(), *([Bfloat16()] if config.precision == "bf16-true" else [])],
        "precision": None if config.precision == "bf16-true" else config.precision,
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
    if config.strategy == "fsdp":
        return ShardedStrategy(config.devices * config.nodes, _backend(config))
    return _replicas(config)


def _backend(config: TrainerConfig) -> str | None:
    """Of the ranks' collectives. Ranks on GPUs also add up what lies on the host, for which NCCL has no answer: figures
    after a test, which leaves its module there, and the moments of embeddings. None: Lightning's choice."""
    return "cpu:gloo,cuda:nccl" if config.accelerator != "cpu" and torch.cuda.is_available() else None


def _replicas(config: TrainerConfig) -> Strategy | Literal["auto"]:
    """A whole model on every device.

    Every step has the same graph, as DDP sees it: each trained parameter is used, attacks and reports go around DDP,
    and nothing that is trained with is a buffer. Told so, DDP fails an assertion of its own at the first batch that it
    does not synchronise (torch 2.15), so that it is not told where batches are accumulated.
    """
    if config.devices * config.nodes == 1 and config.strategy != "ddp":
        return "auto"
    return DDPStrategy(
        find_unused_parameters=False,
        gradient_as_bucket_view=True,
        broadcast_buffers=False,
        static_graph=config.accumulate == 1,
        process_group_backend=_backend(config),
    )


def _callbacks(config: TrainerConfig, run: Run, stop: Stop, sinks: Sequence[Sink]) -> list[Callback]:
    """In the order in which they see the end of a batch, and of a validation: a bad step is neither logged nor saved,
    and what is saved is what was trained."""
    return [
        StepSeed(run.seed),
        Watch(stop, run.checkpoint, config.log_every, config.checkpoint_every),
        Recorder(run, config.log_every, sinks),
        *([EarlyStopping(run, config.patience)] if config.patience else []),  # sees the average, where there is one
        *([Averaging(config.ema)] if config.ema else []),
        Checkpoints(run.checkpoint, config.checkpoint_every, config.validate_every, stop),
        Bar(run.name, config.log_every),
    ]
