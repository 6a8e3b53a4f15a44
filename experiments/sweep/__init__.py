"""The `sweep` verb: one file, many trials, one comparison.

The folder `output/sweeps/NAME/` holds plan.json (all trials), trials.jsonl (what became of them), logs/, claims/ and
the comparison, sweep.md, sweep.csv, sweep.tex, which a search has none of. The trials' runs are where `train` puts
them: a run that exists counts, whichever engine ran it.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path

from configs.errors import ConfigError, did_you_mean
from configs.layers import override_layer
from experiments.sweep.assignment import Assignment
from experiments.sweep.expand import any_trial, expand, only_trial, pinned
from experiments.sweep.ledger import Ledger
from experiments.sweep.ranking import best
from experiments.sweep.spec import Sweep, read
from experiments.sweep.trial import Trial

SLURM = "slurm."  # keys on the command line that are the cluster's


@dataclass(frozen=True)
class Engine:
    """What runs trials: a module with run(assignment) -> exit code and describe(assignment) -> text.

    expanded  methods of which it is given all trials.
    drawn     methods of which it draws the trials itself.
    """

    module: str
    expanded: tuple[str, ...] = ()
    drawn: tuple[str, ...] = ()


ENGINES = {
    "local": Engine("experiments.sweep.local", expanded=("grid", "random")),
    "submitit": Engine("experiments.sweep.slurm", expanded=("grid", "random")),
    "wandb": Engine("experiments.sweep.server", expanded=("grid",), drawn=("random", "bayes")),
    "optuna": Engine("experiments.sweep.search", drawn=("bayes",)),
}


def sweep(file: str, engine: str, jobs: int, dry_run: bool, overrides: Sequence[str]) -> int:
    """Runs what is not finished of a sweep, then writes and prints its comparison; of a search, its best trials alone.
    Returns the exit code.

    Raises:
        ConfigError: a sweep or trial that can't be run, an unknown engine, no job.
        UserError: nothing that can be compared; an engine that is not installed or can't be reached.
    """
    if engine not in ENGINES:
        raise ConfigError(f"there is no engine '{engine}'; {did_you_mean(engine, ENGINES)}")
    if jobs < 1:
        raise ConfigError(f"--jobs must be 1 at least, got {jobs}")
    assignment = assign(file, engine, jobs, overrides)
    module = import_module(ENGINES[engine].module)
    if dry_run:
        print(module.describe(assignment))
        return 0
    ledger = assignment.ledger
    assignment.begin()
    code: int = module.run(assignment)
    _tell_failures(ledger, assignment.trials or assignment.drawn)  # others may have started other trials since
    last = ledger.last()
    if code < 128 and any(ledger.finished(trial, last) for trial in assignment.drawn):
        print(best(assignment) if assignment.sweep.searches else _comparison(ledger.folder))
    return code


def sweep_trial(file: str, overrides: Sequence[str]) -> int:
    """Runs one trial of a sweep, its parameters given as key=value, unless it is finished: what an agent of W&B calls.
    Returns the exit code.

    Raises:
        ConfigError: a parameter that is missing, or a trial that can't be run.
    """
    from experiments.sweep.local import run

    asked = read(file)
    trial = only_trial(asked, overrides)
    assignment = Assignment(asked, tuple(overrides), (trial,), 1, _ledger(asked, trial))
    assignment.plan.add(trial, assignment.ledger.folder)
    return run(assignment)


def assign(file: str, engine: str, jobs: int, overrides: Sequence[str]) -> Assignment:
    """A sweep's file and the command line -> what an engine is to run.

    Raises:
        ConfigError: a sweep or a trial that can't be run, a method that the engine does not do.
    """
    cluster = [one.removeprefix(SLURM) for one in overrides if one.startswith(SLURM)]
    others = tuple(one for one in overrides if not one.startswith(SLURM))
    asked = read(file)
    asked = replace(asked, slurm={**asked.slurm, **override_layer(cluster).values})
    chosen = ENGINES[engine]
    if asked.method in chosen.expanded:
        trials = tuple(expand(asked, others))
        return Assignment(asked, others, trials, jobs, _ledger(asked, trials[0]))
    if asked.method in chosen.drawn:
        return Assignment(asked, others, (), jobs, _ledger(asked, any_trial(pinned(asked, others))))
    able = " or ".join(f"--engine {name}" for name, one in ENGINES.items() if asked.method in one.expanded + one.drawn)
    raise ConfigError(f"{asked.origin} has method {asked.method}, which the engine {engine} does not do; use {able}")


def _ledger(asked: Sweep, trial: Trial) -> Ledger:
    return Ledger(trial.folder.parent.parent / "sweeps" / asked.name)


def _comparison(folder: Path) -> str:
    from experiments.analysis.sweeps import compare_sweeps
    from experiments.analysis.tabular import write

    return write(compare_sweeps([folder]), folder)


def _tell_failures(ledger: Ledger, trials: Sequence[Trial]) -> None:
    last = ledger.last()
    failed = [trial for trial in trials if trial.identity in last and last[trial.identity].state == "failed"]
    if failed:
        logs = ", ".join(str(ledger.log(trial)) for trial in failed)
        print(
            f"{len(failed)} of {len(trials)} trials failed; read {logs}; the same command tries them again",
            file=sys.stderr,
        )
