"""Runs side by side, by method."""

from collections.abc import Mapping, Sequence
from typing import Any

from configs.errors import UserError, did_you_mean
from experiments.analysis.comparison import Comparison
from experiments.analysis.differing import ABSENT, ASKED, plain, text, varying
from experiments.analysis.finding import Finding
from experiments.analysis.outcome import Outcome
from experiments.analysis.row import where
from experiments.analysis.runs import Runs, flat
from experiments.analysis.side_by_side import baseline_of, side_by_side

EXPERIMENT = "experiment"
NAME = "name"  # of an experiment, in its configuration
BANKS = "antibodies"


def compared(
    runs: Runs,
    by: Sequence[str] = (),
    baseline: Mapping[str, Any] | None = None,
    metrics: Sequence[str] = ("accuracy/*/leaf",),
    stage: str = "after",
) -> Comparison:
    """The methods of runs side by side, paired by seed with the baseline.

    Args:
        by: dotted keys whose values tell methods apart, `experiment` among them; none: see `methods`.
        baseline: dotted keys and values of the method to pair with; None: the first run's.
        metrics: patterns of names of figures, in the order of the columns.
        stage: when it was measured: before or after training.

    Raises:
        UserError: nothing was measured; no run has one of the keys; the baseline is several methods or none.
    """
    called = methods(runs, by)
    findings, silent = [], []
    for outcome in runs.outcomes:
        rows = where(outcome.rows, stage=stage)
        if rows:
            method = called[outcome.run]
            findings.append(Finding.of(rows, method, outcome.seed, outcome.run, outcome.config_hash))
        else:
            silent.append(f"{outcome.run}: has measured nothing {stage} training")
    if not findings:
        raise UserError(f"no run has measured anything {stage} training; {'; '.join(runs.excluded) or 'load others'}")
    return side_by_side(
        title=", ".join(dict.fromkeys(outcome.experiment for outcome in runs.outcomes)),
        findings=findings,
        columns=metrics,
        baseline=findings[0].method if baseline is None else _baseline(runs, called, baseline),
        exclusions=[*runs.excluded, *silent],
    )


def methods(runs: Runs, by: Sequence[str] = ()) -> dict[str, str]:
    """Run -> what tells its method from others': `tecoa_openmoji`, `attack.eps_255=4`.

    Without `by` the keys are those in which the configurations of one experiment differ. Where these are several, a
    method is called by what it has of them that is not the schema's default. Raises UserError for a key that none has.
    """
    if not by:
        return _told_apart(runs.outcomes)
    known = {EXPERIMENT, NAME, *(key for outcome in runs.outcomes for key in flat(outcome.config))}
    for key in by:
        if key not in known:
            raise UserError(f"no run has the key '{key}'; {did_you_mean(key, sorted(known))}")
    return {outcome.run: ", ".join(_label(outcome, key) for key in by) for outcome in runs.outcomes}


def _told_apart(outcomes: Sequence[Outcome]) -> dict[str, str]:
    members: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        members.setdefault(outcome.experiment, []).append(outcome)
    found = {}
    for experiment, its in members.items():
        keys = [key for key in varying(its) if _trains(key, its)]
        for outcome in its:
            told = keys if len(keys) < 2 else [key for key in keys if not plain(outcome, key)]
            named = [experiment] if len(members) > 1 or not told else []
            found[outcome.run] = ", ".join([*named, *(_label(outcome, key) for key in told)])
    return {outcome.run: found[outcome.run] for outcome in outcomes}


def _trains(key: str, outcomes: Sequence[Outcome]) -> bool:
    """Whether a key may change what is trained: of banks those that a model is vaccinated with."""
    section, _, rest = key.partition(".")
    used = {(outcome.config.get("vaccination") or {}).get("bank") for outcome in outcomes}
    return section != ASKED and (section != BANKS or rest.partition(".")[0] in used)


def _label(outcome: Outcome, key: str) -> str:
    """An experiment by its name alone, others as key=value."""
    value = _values(outcome).get(key, ABSENT)
    return value if key in (EXPERIMENT, NAME) else f"{key}={value}"


def _values(outcome: Outcome) -> dict[str, str]:
    return {EXPERIMENT: outcome.experiment, **{key: text(value) for key, value in flat(outcome.config).items()}}


def _baseline(runs: Runs, called: Mapping[str, str], wanted: Mapping[str, Any]) -> str:
    parameters = [(called[outcome.run], _values(outcome)) for outcome in runs.outcomes]
    return baseline_of(parameters, {key: text(value) for key, value in wanted.items()})
