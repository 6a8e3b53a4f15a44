"""What W&B is told of a run when it begins: its names, its configuration, and where its code comes from."""

import os
import re
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from configs.schema import ExperimentConfig
from experiments.provenance import git_sha, versions
from experiments.runs import Run
from experiments.tracking.account import mode

SWEEP = "IMMUNOCLIP_SWEEP"  # the environment variable by which a sweep's engine tells its trials the sweep's name
POLL_S = 30.0  # between looks at the tags of the W&B run


def introduction(run: Run, config: ExperimentConfig) -> dict[str, Any]:
    """As JSON takes it.

    The group is `logging.group`, else the sweep, else the experiment. Everything in the W&B configuration lies below
    `experiment` and `run`, so that no key is one of a W&B sweep's parameters, which W&B locks.
    """
    sha = git_sha()
    return {
        "mode": mode(config.logging.wandb),
        "id": identity(run),
        "name": f"{run.name}-{run.config_hash}-s{run.seed}",
        "project": config.logging.project,
        "group": config.logging.group or os.environ.get(SWEEP) or run.name,
        "tags": config.logging.tags,
        "job_type": job_type(run, config),
        "folder": str(run.folder),
        "process": os.getpid(),
        "patience": config.logging.patience,
        "poll": POLL_S,
        "config": {
            "experiment": asdict(config),
            "run": {
                "experiment": run.name,
                "config_hash": run.config_hash,
                "seed": run.seed,
                "git_sha": sha and sha.removesuffix("-dirty"),
                "git_dirty": sha and sha.endswith("-dirty"),
                "versions": versions(),
                "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
            },
        },
    }


def identity(run: Run) -> str:
    """The same for every attempt, so that they are one W&B run: NAME-HASH-sSEED in characters that W&B allows, or what
    `wandb agent` calls its trial, or called it when the run began."""
    if "WANDB_SWEEP_ID" in os.environ and "WANDB_RUN_ID" in os.environ:
        return os.environ["WANDB_RUN_ID"]
    if noted(run).exists():
        return noted(run).read_text()
    name = re.sub(r"[^\w.-]", "-", run.name, flags=re.ASCII)
    return f"{name[:80]}-{run.config_hash}-s{run.seed}"


def noted(run: Run) -> Path:
    """The file that keeps the identity for later attempts."""
    return run.folder / "wandb" / "id"


def job_type(run: Run, config: ExperimentConfig) -> str:
    """`train` of a run whose training has begun, in whatever it does then; `attack` or `eval` of one that measures the
    model that it would start from."""
    if run.status is not None:
        return "train"
    return "attack" if config.evaluation.attacks or config.evaluation.eps_sweep_255 else "eval"
