"""Weights & Biases: a mirror of the run's own files, which never prompts and never stops a run."""

import netrc
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from configs.schema.logging import LoggingConfig
from experiments.runs import Run

_SERVER = "https://api.wandb.ai"
_STEP = "trainer/global_step"


class Mirror:
    """Passes metrics on to a W&B run, which starts with the first of them. At the first failure it turns itself off,
    with one line on stderr."""

    def __init__(self, start: Callable[[], Any]) -> None:
        self._start = start
        self._target: Any = None
        self._off = False

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Values of one step, plotted against `trainer/global_step`: W&B's own step starts anew with each resume."""
        self._try(lambda: self._run().log({**metrics, _STEP: step}))

    def forget(self, after: int) -> None:
        """Nothing: W&B keeps what it has, and plots the repeated steps over it."""

    def keep(self, folder: Path, name: str, kind: str) -> None:
        """Files a folder as an artifact of the W&B run."""
        self._try(lambda: self._run().log_artifact(str(folder), name=name, type=kind))

    def close(self) -> None:
        """Ends the W&B run, so that the next fit in this process has its own."""
        if self._target is not None:
            self._try(self._target.finish)

    def _run(self) -> Any:
        if self._target is None:
            self._target = self._start()
        return self._target

    def _try(self, action: Callable[[], Any]) -> None:
        if self._off:
            return
        try:
            action()
        except Exception as error:  # wandb, its service and the network fail in many ways; a mirror may not matter
            self._off = True
            reason = (str(error).splitlines() or [repr(error)])[0]
            print(f"Weights & Biases is off for this run: {reason}", file=sys.stderr)


def mirror(run: Run, config: LoggingConfig, settings: Mapping[str, Any], job_type: str = "train") -> Mirror | None:
    """The W&B run of a run, with an id of its own that a resume continues; None where it is switched off.

    settings  what W&B files as the configuration.
    """
    return None if config.wandb == "disabled" else Mirror(lambda: _init(run, config, settings, job_type))


def _init(run: Run, config: LoggingConfig, settings: Mapping[str, Any], job_type: str) -> Any:
    import wandb

    identity = f"{run.name}-{run.config_hash}-s{run.seed}"
    target = wandb.init(
        name=identity,
        id=identity,
        resume="allow",
        project=config.project,
        group=config.group or run.name,
        tags=list(config.tags),
        job_type=job_type,
        dir=str(run.folder),
        mode=mode(config.wandb),
        config=dict(settings),
        settings=wandb.Settings(silent=True, console="off"),
    )
    target.define_metric(_STEP)
    target.define_metric("*", step_metric=_STEP)
    return target


def mode(wanted: str) -> Any:
    """wandb's own word for what the configuration says; `auto` heeds WANDB_MODE, then asks whether there is a key."""
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
