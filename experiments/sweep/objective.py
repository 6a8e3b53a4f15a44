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

    allowed = OmegaConf.load(trial.folder / "config.yaml").data.val_split
    found = {figure.name: figure for figure in figures(where(load_rows(trial.folder), stage="after", split=allowed))}
    if metric not in found:
        names = ", ".join(found) or "none"
        raise UserError(
            f"{trial.folder} has no figure {metric} of the split {allowed}, which is all that a search may see; let "
            f"metric.name be one of those that it has: {names}"
        )
    return found[metric].value


def validated(trial: Trial, column: str) -> list[float]:
    """What training wrote into a column of metrics.csv so far, oldest first."""
    path = trial.folder / "metrics.csv"
    if not path.exists():
        return []
    with path.open(newline="") as file:
        whole = [line for line in file if line.endswith("\n")]  # training may be writing the last one
    return [float(row[column]) for row in csv.DictReader(whole) if row.get(column)]
