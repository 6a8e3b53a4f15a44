"""One trial of a sweep: an experiment, its settings, and the run that they make."""

import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from configs.compose import Composed
from experiments.sweep.spec import EXPERIMENT, SEED


@dataclass(frozen=True)
class Trial:
    """A configuration to be trained and measured.

    identity    8 hexadecimal digits over the run and what is asked of it; not over files, machine or place.
    parameters  those of the sweep, `experiment` among them.
    overrides   the same as key=value, as the command line takes them; `experiment` is left out.
    folder      the run's.
    """

    identity: str
    parameters: Mapping[str, Any]
    overrides: tuple[str, ...]
    config_hash: str
    seed: int
    folder: Path

    @staticmethod
    def of(composed: Composed, parameters: Mapping[str, Any]) -> "Trial":
        """The trial of a composed configuration."""
        config = composed.config
        asked = [config.name, composed.hash, config.seed, asdict(config.evaluation)]
        identity = sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:8]
        overrides = composed.inputs.overrides
        return Trial(identity, parameters, overrides, composed.hash, config.seed, composed.run_folder)

    @staticmethod
    def parse(fields: Mapping[str, Any], place: Path) -> "Trial":
        """From `as_dict`, for a file in the folder `place`. Raises KeyError or TypeError where it is not one."""
        folder = Path(os.path.normpath(place / fields["folder"]))
        return Trial(**{**fields, "overrides": tuple(fields["overrides"]), "folder": folder})

    def as_dict(self, place: Path) -> dict[str, Any]:
        """For JSON in the folder `place`, which may move together with the run."""
        return {**asdict(self), "folder": os.path.relpath(self.folder, place)}

    @property
    def commands(self) -> tuple[tuple[str, ...], ...]:
        """Training, then the measurement of what was trained: what any engine runs, one after the other."""
        start = (sys.executable, "-m", "experiments")
        settings = (str(self.parameters[EXPERIMENT]), *self.overrides)
        return (*start, "train", *settings), (*start, "evaluate", *settings, "--stage", "after")


def label(key: str, value: Any) -> str:
    """A parameter in words: an experiment by its name alone, others as key=value."""
    return Path(str(value)).stem if key == EXPERIMENT else f"{key}={value}"


def titles(trials: Sequence[Trial]) -> dict[str, str]:
    """Identity -> `tecoa_openmoji, seed 3`"""
    names = methods(trials)
    return {trial.identity: f"{names[trial.identity]}, seed {trial.seed}" for trial in trials}


def methods(trials: Sequence[Trial]) -> dict[str, str]:
    """Identity -> what tells the trial's method from others': all parameters that differ, but the seed."""
    differing = [key for key in _keys(trials) if key != SEED and len(_values(trials, key)) > 1] or [EXPERIMENT]
    return {
        trial.identity: ", ".join(label(key, trial.parameters[key]) for key in differing if key in trial.parameters)
        for trial in trials
    }


def _keys(trials: Iterable[Trial]) -> list[str]:
    return list(dict.fromkeys(key for trial in trials for key in trial.parameters))


def _values(trials: Iterable[Trial], key: str) -> set[str]:
    return {json.dumps(trial.parameters.get(key), sort_keys=True) for trial in trials}
