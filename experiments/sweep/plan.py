"""plan.json: what a sweep is to run and to compare, as its last start had it."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from configs.errors import UserError
from experiments.atomic import write_text
from experiments.sweep.claim import exclusive
from experiments.sweep.trial import Trial


@dataclass(frozen=True)
class Plan:
    """All trials of a sweep in their order, what is compared in the end (`Sweep` says more), and the command."""

    name: str
    command: str
    metric: tuple[str, str] | None
    baseline: Mapping[str, Any]
    columns: tuple[str, ...]
    trials: tuple[Trial, ...]

    def write(self, folder: Path) -> None:
        """Replaces the plan in a sweep's folder."""
        fields = {**asdict(self), "trials": [trial.as_dict(folder) for trial in self.trials]}
        write_text(folder / "plan.json", json.dumps(fields, indent=2) + "\n")

    def add(self, trial: Trial, folder: Path) -> None:
        """Puts a trial into the plan of a sweep's folder, which is this one where there is none yet; several processes
        may do so at once."""
        with exclusive(folder):
            plan = Plan.read(folder) if (folder / "plan.json").exists() else self
            if trial.identity not in {one.identity for one in plan.trials}:
                replace(plan, trials=(*plan.trials, trial)).write(folder)

    @staticmethod
    def read(folder: Path) -> "Plan":
        """The plan of a sweep's folder.

        Raises:
            UserError: there is none, or it is damaged.
        """
        path = folder / "plan.json"
        if not path.is_file():
            raise UserError(f"{folder} holds no plan.json; name the folder of a sweep, such as outputs/sweeps/NAME")
        try:
            fields = json.loads(path.read_bytes())
            metric = fields["metric"] and (fields["metric"][0], fields["metric"][1])
            trials = tuple(Trial.parse(trial, folder) for trial in fields["trials"])
            return Plan(**{**fields, "metric": metric, "columns": tuple(fields["columns"]), "trials": trials})
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{path} is no plan of a sweep ({error!r}); start the sweep again to write it") from error
