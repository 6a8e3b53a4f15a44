"""Weights & Biases: a mirror of the run's own files, which never prompts and never stops a run."""

import netrc
import os
import sys
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any
from urllib.parse import urlparse

from lightning.pytorch.loggers import Logger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from configs.schema.logging import LoggingConfig
from experiments.runs import Run

_SERVER = "https://api.wandb.ai"


class Mirror(Logger):
    """Passes everything on to a W&B run, and turns itself off at the first failure, with one line on stderr."""

    def __init__(self, target: Callable[[], WandbLogger]) -> None:
        super().__init__()
        self._make = target
        self._target: WandbLogger | None = None
        self._off = False

    @property
    def name(self) -> str:
        """Of the service."""
        return "wandb"

    @property
    def version(self) -> int | str | None:
        """The run's id is in the W&B folder."""
        return None

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """The configuration of the run."""
        self._try(lambda target: target.log_hyperparams(params))

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Values of one step, plotted against `trainer/global_step`."""
        self._try(lambda target: target.log_metrics(metrics, step))

    @rank_zero_only
    def close(self) -> None:
        """Ends the W&B run, so that the next fit in this process has its own."""
        if self._target is not None:
            self._try(lambda target: target.experiment.finish())

    def _try(self, action: Callable[[WandbLogger], Any]) -> None:
        if self._off:
            return
        try:
            self._target = self._target or self._make()
            action(self._target)
        except Exception as error:  # a mirror may fail in any way that wandb, its service or the network can
            self._off = True
            print(f"Weights & Biases is off for this run: {(str(error).splitlines() or [repr(error)])[0]}", file=sys.stderr)


def mirror(run: Run, config: LoggingConfig, job_type: str = "train") -> Mirror | None:
    """The W&B run of a run, with an id of its own that a resume continues; None where it is off or not installed."""
    if config.wandb == "off":
        return None
    if find_spec("wandb") is None:
        print("Weights & Biases is off for this run: wandb is not installed", file=sys.stderr)
        return None

    def make() -> WandbLogger:
        run.folder.mkdir(parents=True, exist_ok=True)
        identity = f"{run.name}-{run.config_hash}-s{run.seed}"
        # mode, not WandbLogger(offline=True), which sets WANDB_MODE for every later logger of the process.
        return WandbLogger(
            name=identity, id=identity, project=config.project, save_dir=run.folder, mode=_mode(config.wandb),
            group=config.group or run.name, tags=list(config.tags), job_type=job_type, resume="allow", settings=_quiet(),
        )  # fmt: skip

    return Mirror(make)


def _mode(wanted: str) -> str:
    if wanted != "auto":
        return wanted
    return os.environ.get("WANDB_MODE") or ("online" if _has_key() else "offline")


def _has_key() -> bool:
    """Whether a key is configured where wandb itself looks: the environment, then netrc."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL", _SERVER)).hostname or ""
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def _quiet() -> Any:
    import wandb

    return wandb.Settings(silent=True, console="off")
