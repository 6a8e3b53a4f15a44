"""What runs cost: seconds a step, hours, and hours times devices."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.analysis.loading import Floats
from experiments.analysis.outcome import Outcome
from experiments.analysis.runs import Runs

if TYPE_CHECKING:
    import pandas as pd

SECONDS = "train/seconds_per_step"  # of metrics.csv
HOUR = 3600.0


def cost(runs: Runs) -> "pd.DataFrame":
    """A line a run: hardware, devices, steps, seconds a step (mean), hours of training and of measuring, and
    `device_hours`, both times the devices: GPU-hours where the hardware is GPUs.

    NaN where it is not known: runs that train nothing have no seconds a step, and without config.yaml nothing tells how
    many devices there were.
    """
    import pandas as pd

    return pd.DataFrame([_line(outcome) for outcome in runs.outcomes]).set_index("run")


def _line(outcome: Outcome) -> dict[str, Any]:
    steps, seconds = outcome.curves.get(SECONDS, (np.zeros(0), np.zeros(0)))
    training = _training(steps, seconds)
    measuring = _measuring(outcome)
    devices = _devices(outcome.config)
    return {
        "run": outcome.run,
        "experiment": outcome.experiment,
        "seed": outcome.seed,
        "hardware": "; ".join(sorted({str(row.provenance.get("device")) for row in outcome.rows})),
        "devices": devices,
        "steps": int(steps[-1]) if len(steps) else 0,
        "seconds_per_step": training / steps[-1] if len(steps) else np.nan,
        "train_hours": training / HOUR,
        "measure_hours": measuring / HOUR,
        "device_hours": (training + measuring) / HOUR * devices,
    }


def _training(steps: Floats, seconds: Floats) -> float:
    """Each logged value is the mean since the one before; 0 where nothing was trained."""
    return float((np.diff(steps, prepend=0) * seconds).sum())


def _measuring(outcome: Outcome) -> float:
    """Rows of one measurement tell the same seconds."""
    found = {(row.stage, float(row.provenance.get("seconds") or 0)) for row in outcome.rows}
    return sum(seconds for _, seconds in found)


def _devices(config: Mapping[str, Any]) -> float:
    trainer = config.get("trainer")
    return float(trainer["devices"] * trainer["nodes"]) if trainer else np.nan
