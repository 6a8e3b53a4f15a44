"""The `evaluate` verb: measures the model that a run starts from, and the one that it trained."""

from lightning.pytorch.utilities import rank_zero_only

from configs.compose import Composed
from configs.schema.model import ModelConfig
from datamodules import build_datamodule
from experiments.analysis import compare, load_rows
from experiments.measure import measure
from experiments.plan import describe
from experiments.runs import Run
from lightning_modules.backbones import load_backbone


def evaluate(composed: Composed, dry_run: bool = False) -> int:
    """Measures `before`, and `after` where the run has a trained model, and prints them. Returns the exit code."""
    run, config = Run.of(composed), composed.config
    if dry_run:
        print(describe(composed))
        return 0
    run.describe(composed)
    data = build_datamodule(config.data, config.seed)
    measure(run, config, load_backbone(config.model), data, "before")
    if run.model.exists():
        measure(run, config, load_backbone(trained(run)), data, "after")
    show(run)
    return 0


def trained(run: Run) -> ModelConfig:
    """The model that the run trained."""
    return ModelConfig(name=f"local-dir:{run.model}")


@rank_zero_only
def show(run: Run) -> None:
    """Prints what was measured, a column a stage; rank 0 only."""
    print(compare(load_rows(run.folder)))
