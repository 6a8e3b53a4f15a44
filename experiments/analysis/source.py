"""Where runs are: folders, sweeps, patterns of paths, and Weights & Biases."""

import os
from collections.abc import Iterator, Sequence
from glob import glob, has_magic
from pathlib import Path

from configs.errors import UserError
from experiments.analysis.place import Place
from experiments.analysis.remote import fetch
from experiments.sweep.plan import Plan
from experiments.sweep.trial import methods

RUN = ("results.jsonl", "status.json", "config.inputs.json")  # each marks a run's folder
WANDB = "wandb://"


def places(sources: Sequence[str | Path]) -> list[Place]:
    """One for each source.

    Raises:
        UserError: there is no such folder, or nothing that a run has left in it.
    """
    return [_place(str(source)) for source in sources]


def _place(source: str) -> Place:
    if source.startswith(WANDB):
        return fetch(source)
    matched = sorted(glob(source, recursive=True)) if has_magic(source) and not Path(source).exists() else [source]
    found = [_local(Path(path)) for path in matched if Path(path).is_dir()]
    if not found:
        raise UserError(f"there is no folder {source}; name a run's, a sweep's, or one above them such as outputs")
    place = Place(*([each for part in found for each in getattr(part, name)] for name in ("folders", "excluded")))
    if not place.folders and not place.excluded:
        raise UserError(f"no run has left anything below {source}; name another folder, or start a run")
    return place


def _local(folder: Path) -> Place:
    """Of a run, of a sweep, or of all of both below."""
    runs: list[Path] = []
    sweeps: list[Path] = []
    for found in _marked(folder):
        (sweeps if (found / "plan.json").is_file() else runs).append(found)
    trials = [_sweep(sweep) for sweep in sweeps]
    return Place(
        [*runs, *(run for place in trials for run in place.folders)], [one for each in trials for one in each.excluded]
    )


def _marked(folder: Path) -> Iterator[Path]:
    """Folders of runs and of sweeps, in the order of their names; nothing below them."""
    for path, below, files in os.walk(folder):
        if "plan.json" in files or any(name in files for name in RUN):
            below.clear()
            yield Path(path)
        below.sort(key=_in_order)


def _in_order(name: str) -> tuple[str, int]:
    """abc-s9 before abc-s10."""
    stem, _, seed = name.rpartition("-s")
    return (stem, int(seed)) if stem and seed.isdecimal() else (name, 0)


def _sweep(folder: Path) -> Place:
    """The runs of its trials; a sentence for each method of which trials were not started."""
    plan = Plan.read(folder)
    started = {trial.identity for trial in plan.trials if any((trial.folder / name).is_file() for name in RUN)}
    called, waiting = methods(plan.trials), dict[str, list[str]]()
    for trial in plan.trials:
        if trial.identity not in started:
            waiting.setdefault(called[trial.identity], []).append(str(trial.seed))
    return Place(
        [trial.folder for trial in plan.trials if trial.identity in started],
        [f"{method}, seed {', '.join(seeds)}: not started (sweep {plan.name})" for method, seeds in waiting.items()],
    )
