"""What a search is after: one figure of each trial, of the validation split."""

import csv

from omegaconf import OmegaConf

from configs.errors import UserError
from experiments.sweep.trial import Trial


def measured(trial: Trial, metric: str) -> float:
    """The figure of that name in the trial's results, as the comparison names them.

    Raises:
        UserError: it was not measured, or on another split than the run's `data.val_split`.
    """
    from experiments.analysis.finding import figures
    from experiments.analysis.loading import load_rows
    from experiments.analysis.row import where

    found = {figure.name: figure for figure in figures(where(load_rows(trial.folder), stage="after"))}
    if metric not in found:
        raise UserError(f"{trial.folder} has no figure {metric}; let metric.name be one of {', '.join(found)}")
    split = found[metric].settings["split"]
    allowed = OmegaConf.load(trial.folder / "config.yaml").data.val_split
    if split != allowed:
        raise UserError(f"{metric} of {trial.folder} is of the split {split}; a search may see {allowed} alone")
    return found[metric].value


def validated(trial: Trial, column: str) -> list[float]:
    """What training wrote into a column of metrics.csv so far, oldest first."""
    path = trial.folder / "metrics.csv"
    if not path.exists():
        return []
    with path.open(newline="") as file:
        whole = [line for line in file if line.endswith("\n")]  # training may be writing the last one
    return [float(row[column]) for row in csv.DictReader(whole) if row.get(column)]
