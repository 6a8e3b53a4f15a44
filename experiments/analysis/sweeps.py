"""What the trials of sweeps measured after training, as far as it can be compared."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from configs.errors import UserError
from experiments.analysis.comparison import Comparison
from experiments.analysis.finding import Finding
from experiments.analysis.loading import load_rows
from experiments.analysis.row import where
from experiments.analysis.side_by_side import baseline_of, fitting, side_by_side
from experiments.sweep.ledger import Ledger
from experiments.sweep.plan import Plan
from experiments.sweep.trial import Trial, methods, titles


def compare_sweeps(
    folders: Sequence[Path], columns: Sequence[str] = (), baseline: Mapping[str, Any] | None = None
) -> Comparison:
    """The methods of one or several sweeps side by side, paired by seed with the baseline.

    Args:
        folders: of sweeps, `output/sweeps/NAME`.
        columns: patterns of names (`accuracy/*/leaf`); none: those of the first sweep. Its own metric leads.
        baseline: parameters of the method to pair with; None: the first sweep's, or else the first method.

    Raises:
        UserError: a folder that is no sweep's; no trial has finished; the baseline is several methods or none.
    """
    plans = [Plan.read(folder) for folder in folders]
    trials = list({trial.folder: trial for plan in plans for trial in plan.trials}.values())
    findings, unfinished = _findings(folders, trials)
    if not findings:
        raise UserError(f"no trial of {', '.join(map(str, folders))} has finished; start the sweep again")
    metric = [plans[0].metric[0]] if plans[0].metric else []
    return side_by_side(
        title=", ".join(plan.name for plan in plans),
        findings=findings,
        columns=[*metric, *(columns or plans[0].columns or ["*"])],
        baseline=_baseline(trials, plans[0], baseline),
        exclusions=unfinished,
        commands=[plan.command for plan in plans],
    )


def _findings(folders: Sequence[Path], trials: Sequence[Trial]) -> tuple[list[Finding], list[str]]:
    """The finished trials, and a sentence for each of the others."""
    called, told = methods(trials), titles(trials)
    ledgers = [(Ledger(folder), Ledger(folder).last()) for folder in folders]
    found: list[Finding] = []
    missing: list[str] = []
    for trial in trials:
        if any(ledger.finished(trial, last) for ledger, last in ledgers):
            rows = where(load_rows(trial.folder), stage="after")
            method = called[trial.identity]
            found.append(Finding.of(rows, method, trial.seed, str(trial.folder), trial.config_hash))
            continue
        event = next((last[trial.identity] for _, last in ledgers if trial.identity in last), None)
        state = f"{event.state} (log: {event.log})" if event else "not started"
        missing.append(f"{told[trial.identity]}: {state}")
    return found, missing


def _baseline(trials: Sequence[Trial], plan: Plan, given: Mapping[str, Any] | None) -> str:
    """The method's name; the first one where the plan's is not among the trials, as it is pinned to another value."""
    called = methods(trials)
    parameters = [(called[trial.identity], trial.parameters) for trial in trials]
    if given is not None:
        return baseline_of(parameters, given)
    return next(iter(fitting(parameters, plan.baseline)), parameters[0][0])
