"""The `evaluate` verb: measures the model that a run starts from, and the one that it trained."""

import sys
from typing import Literal

from lightning.pytorch.utilities import rank_zero_only

from configs.compose import Composed
from configs.errors import UserError
from configs.schema import ExperimentConfig
from configs.schema.model import ModelConfig
from datamodules import build_datamodule
from experiments.analysis import compare, load_rows, matrices
from experiments.measure import measure
from experiments.runs import Run
from experiments.stop import Interrupted
from experiments.tracking.mirror import Mirror, mirrored
from lightning_modules.backbones import load_backbone

Stage = Literal["before", "after"]


def evaluate(composed: Composed, stage: Stage | None = None) -> int:
    """Measures `before`, and `after` where the run has a trained model, or one of them alone, and prints what is known.
    Returns the exit code.

    Raises:
        UserError: `after` is asked for alone, and nothing was trained.
    """
    run, config = Run.of(composed), composed.config
    if stage == "after" and not run.model.exists():
        why = f"; training {run.status.unfinished}" if run.status and run.status.unfinished else ""
        raise UserError(f"{run.folder} holds no trained model{why}; train {config.name} with the same settings first")
    try:
        with run.attempt(), mirrored(run, config) as mirror, run.measured():
            run.describe(composed)
            _measure(run, config, stage, mirror)
    except Interrupted as interruption:
        _say(str(interruption))
        return interruption.exit_code
    show(run)
    return 0


def _measure(run: Run, config: ExperimentConfig, stage: Stage | None, mirror: Mirror) -> None:
    data = build_datamodule(config.data, config.seed)
    if stage != "after":
        measure(run, config, load_backbone(config.model), data, "before")
        mirror.measured("before", data)
    if stage != "before" and run.model.exists():
        measure(run, config, load_backbone(trained(run)), data, "after")
        mirror.measured("after", data)
    if run.status is not None and run.status.unfinished:
        _say(f"training of {run.folder} {run.status.unfinished}; the same 'train' command resumes it")


def trained(run: Run) -> ModelConfig:
    """The model that the run trained."""
    return ModelConfig(name=f"local-dir:{run.model}")


@rank_zero_only
def _say(line: str) -> None:
    print(line, file=sys.stderr)


@rank_zero_only
def show(run: Run) -> None:
    """Prints what was measured, a column a stage; rank 0 only."""
    rows = load_rows(run.folder)
    print("\n\n".join([compare(rows), *(matrix.table() for matrix in matrices(rows))]))
