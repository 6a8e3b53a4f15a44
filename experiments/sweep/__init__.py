"""The `sweep` verb: one file, many trials, one comparison.

The folder `output/sweeps/NAME/` holds plan.json (all trials), trials.jsonl (what became of them), logs/, claims/, and
the comparison: sweep.md, sweep.csv, sweep.tex. The trials' runs are where `train` puts them: a run that exists counts.
"""

import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from configs.errors import ConfigError, did_you_mean
from experiments.sweep.expand import expand
from experiments.sweep.ledger import Ledger
from experiments.sweep.plan import Plan
from experiments.sweep.spec import read
from experiments.sweep.trial import Trial, titles

ENGINES = {"local": "experiments.sweep.local"}  # modules with run(ledger, trials, jobs) -> exit code


def sweep(file: str, engine: str, jobs: int, dry_run: bool, overrides: Sequence[str]) -> int:
    """Runs what is not finished of a sweep, then writes and prints its comparison. Returns the exit code.

    Raises:
        ConfigError: a sweep or trial that can't be run, an unknown engine, no job.
        UserError: nothing that can be compared.
    """
    if engine not in ENGINES:
        raise ConfigError(f"there is no engine '{engine}'; {did_you_mean(engine, ENGINES)}")
    if jobs < 1:
        raise ConfigError(f"--jobs must be 1 at least, got {jobs}")
    asked = read(file)
    trials = expand(asked, overrides)
    ledger = Ledger(trials[0].folder.parent.parent / "sweeps" / asked.name)
    if dry_run:
        print(_described(ledger, trials))
        return 0
    command = " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])
    Plan(asked.name, command, asked.metric, asked.baseline, asked.columns, tuple(trials)).write(ledger.folder)
    code: int = import_module(ENGINES[engine]).run(ledger, trials, jobs)
    _tell_failures(ledger, trials)
    last = ledger.last()
    if code < 128 and any(ledger.finished(trial, last) for trial in trials):
        from experiments.analysis.sweeps import compare_sweeps
        from experiments.analysis.tabular import write

        comparison = compare_sweeps([ledger.folder])
        print(write(comparison, ledger.folder))
    return code


def _described(ledger: Ledger, trials: Sequence[Trial]) -> str:
    last = ledger.last()
    states = {trial.identity: last[trial.identity].state if trial.identity in last else "to do" for trial in trials}
    told = titles(trials)
    lines = [f"{len(trials)} trials, in {ledger.folder}"]
    for trial in trials:
        lines.append(f"{trial.identity}  {states[trial.identity]:<11}  {trial.folder}  {told[trial.identity]}")
    return "\n".join(lines)


def _tell_failures(ledger: Ledger, trials: Sequence[Trial]) -> None:
    last = ledger.last()
    failed = [trial for trial in trials if trial.identity in last and last[trial.identity].state == "failed"]
    if failed:
        logs = ", ".join(str(ledger.log(trial)) for trial in failed)
        print(
            f"{len(failed)} of {len(trials)} trials failed; read {logs}; the same command tries them again",
            file=sys.stderr,
        )
