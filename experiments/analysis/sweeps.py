"""What the trials of sweeps measured after training, as far as it can be compared.

A figure's name is `METRIC/ATTACK/PLACE`: accuracy/clean/leaf, accuracy/pgd20/unicode-1, and accuracy/pgd20/levels, the
mean over the leaf and every level of every tree. Open-world figures are `METRIC/SCORE/SPLIT`, such as auroc/mcm/near.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from statistics import fmean
from typing import Any

from configs.errors import UserError
from experiments.analysis import names
from experiments.analysis.comparison import Comparison
from experiments.analysis.loading import load_rows
from experiments.analysis.row import SWEEP, Row, where
from experiments.sweep.ledger import Ledger
from experiments.sweep.plan import Plan
from experiments.sweep.trial import Trial, methods, titles

LEVELS = "levels"  # in the place of a level: the mean over all
Table = dict[str, dict[str, dict[int, float]]]


@dataclass(frozen=True)
class Figure:
    """One number of a trial. Two are comparable where their settings are equal: data, samples, attack, levels."""

    name: str
    value: float
    settings: Mapping[str, Any]
    suspect: tuple[str, ...]

    @property
    def key(self) -> str:
        """The settings as text."""
        return json.dumps(self.settings, sort_keys=True)


@dataclass(frozen=True)
class Finding:
    """What a finished trial measured, and the commits of the code that did."""

    trial: Trial
    method: str
    title: str
    figures: tuple[Figure, ...]
    commits: frozenset[str]


def compare_sweeps(
    folders: Sequence[Path], columns: Sequence[str] = (), baseline: Mapping[str, Any] | None = None
) -> Comparison:
    """The methods of one or several sweeps side by side, paired by seed with the baseline.

    Args:
        folders: of sweeps, `output/sweeps/NAME`.
        columns: patterns of names (`accuracy/*/leaf`); none: those of the first sweep.
        baseline: parameters of the method to pair with; None: the first sweep's, or else the first method.

    Raises:
        UserError: a folder that is no sweep's; no trial has finished; the baseline is several methods or none.
    """
    plans = [Plan.read(folder) for folder in folders]
    trials = list({trial.folder: trial for plan in plans for trial in plan.trials}.values())
    findings, unfinished = _findings(folders, trials)
    if not findings:
        raise UserError(f"no trial of {', '.join(map(str, folders))} has finished; start the sweep again")
    alike, others = _alike(findings)
    wanted, unmeasured = _columns(plans[0], columns, alike)
    unlike = [sentence for name, sentence in others if name in wanted]
    table, twice = _table(alike, wanted)
    return Comparison(
        title=", ".join(plan.name for plan in plans),
        baseline=_baseline(trials, plans[0], baseline),
        table=table,
        exclusions=[*unfinished, *unlike, *unmeasured, *twice],
        doubts=_doubts(alike, wanted),
        provenance=_provenance(plans, alike, wanted),
    )


def figures(rows: Sequence[Row]) -> tuple[Figure, ...]:
    """Those of one trial, then the means over levels; without the curve over radii."""
    found: list[Figure] = []
    levels: dict[str, list[tuple[Row, Figure]]] = {}
    for row in rows:
        if row.attack_name == SWEEP:
            continue
        settings = {"dataset": row.dataset, "split": row.split, "n": row.n, **(row.attack or {})}
        figure = Figure(_name(row), row.value, settings, row.suspect)
        found.append(figure)
        if row.metric == "accuracy" and row.level is not None and not row.superclass:
            levels.setdefault(f"{row.attack_name} {figure.key}", []).append((row, figure))
    return (*found, *(_mean(members) for members in levels.values() if len(members) > 1))


def _name(row: Row) -> str:
    if row.score:
        return "/".join([row.metric, row.score, row.split, *([row.attack_name] if row.attack_name else [])])
    return "/".join(part for part in (row.metric, row.attack_name or "clean", _place(row)) if part)


def _place(row: Row) -> str:
    if row.level is None:
        return row.tree or ""
    return f"{row.tree}-{row.level}" if row.level else "leaf"


def _mean(members: Sequence[tuple[Row, Figure]]) -> Figure:
    row, figure = members[0]
    return replace(
        figure,
        name=f"accuracy/{row.attack_name or 'clean'}/{LEVELS}",
        value=fmean(one.value for _, one in members),
        settings={**figure.settings, LEVELS: sorted(_place(row) for row, _ in members)},
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
            commits = frozenset(str(row.provenance["git_sha"]) for row in rows)
            found.append(Finding(trial, called[trial.identity], told[trial.identity], figures(rows), commits))
            continue
        event = next((last[trial.identity] for _, last in ledgers if trial.identity in last), None)
        state = f"{event.state} (log: {event.log})" if event else "not started"
        missing.append(f"{told[trial.identity]}: {state}")
    return found, missing


def _alike(findings: Sequence[Finding]) -> tuple[list[Finding], list[tuple[str, str]]]:
    """Of each name the figures with the settings that most trials share; name and a sentence for each left out."""
    settings: dict[str, Counter[str]] = {}
    for finding in findings:
        for figure in finding.figures:
            settings.setdefault(figure.name, Counter())[figure.key] += 1
    shared = {name: counter.most_common(1)[0][0] for name, counter in settings.items()}
    kept, left_out = [], []
    for finding in findings:
        mine = {figure.name: figure for figure in finding.figures if figure.key == shared[figure.name]}
        others = {figure.name: figure for figure in finding.figures if figure.name not in mine}
        kept.append(replace(finding, figures=tuple(mine.values())))
        left_out += [(name, f"{finding.title}, {name}: {_unlike(one, shared[name])}") for name, one in others.items()]
    return kept, left_out


def _unlike(figure: Figure, shared: str) -> str:
    """What differs, from the settings that are shared."""
    mine, usual = json.loads(figure.key), json.loads(shared)
    keys = [key for key in {**mine, **usual} if mine.get(key) != usual.get(key)]
    return "measured with " + ", ".join(f"{key} {mine.get(key)}, not {usual.get(key)} as most" for key in keys)


def _columns(plan: Plan, wanted: Sequence[str], findings: Sequence[Finding]) -> tuple[list[str], list[str]]:
    """The names that fit the patterns, the sweep's own metric first; a sentence for each pattern that fits none."""
    known = list(dict.fromkeys(figure.name for finding in findings for figure in finding.figures))
    patterns = [*([plan.metric[0]] if plan.metric else []), *(wanted or plan.columns or ["*"])]
    fitting = {pattern: [name for name in known if fnmatchcase(name, pattern)] for pattern in patterns}
    missing = [f"{pattern}: measured by no trial" for pattern, found in fitting.items() if not found]
    return list(dict.fromkeys(name for found in fitting.values() for name in found)), missing


def _table(findings: Sequence[Finding], columns: Sequence[str]) -> tuple[Table, list[str]]:
    """The figures in their places; a sentence for each trial of a method and seed that are there already."""
    table: Table = {column: {} for column in columns}
    taken: dict[tuple[str, int], Finding] = {}
    for finding in findings:
        if taken.setdefault((finding.method, finding.trial.seed), finding) is finding:
            for figure in finding.figures:
                if figure.name in table:
                    table[figure.name].setdefault(finding.method, {})[finding.trial.seed] = figure.value
    twice = [finding for finding in findings if taken[finding.method, finding.trial.seed] is not finding]
    return table, [f"{one.title}, run {one.trial.folder}: another run of that method and seed counts" for one in twice]


def _baseline(trials: Sequence[Trial], plan: Plan, given: Mapping[str, Any] | None) -> str:
    """The method's name."""
    wanted = plan.baseline if given is None else given
    called = methods(trials)
    fitting = list(
        dict.fromkeys(
            called[trial.identity]
            for trial in trials
            if all(trial.parameters.get(key) == value for key, value in wanted.items())
        )
    )
    if given is None and not fitting:  # pinned to another value
        return called[trials[0].identity]
    if given is not None and len(fitting) != 1:
        found = "; ".join(dict.fromkeys(called.values()))
        raise UserError(f"the baseline {dict(given)} fits {len(fitting)} of the methods {found}; name one of them")
    return fitting[0]


def _doubts(findings: Sequence[Finding], columns: Sequence[str]) -> list[str]:
    seeds: dict[tuple[str, str, str], list[int]] = {}
    for finding in findings:
        for figure in finding.figures:
            for reason in figure.suspect if figure.name in columns else ():
                seeds.setdefault((finding.method, figure.name, reason), []).append(finding.trial.seed)
    return [
        f"{method}, {name}, seed {', '.join(map(str, found))}: {reason}"
        for (method, name, reason), found in seeds.items()
    ]


def _provenance(plans: Sequence[Plan], findings: Sequence[Finding], columns: Sequence[str]) -> list[str]:
    """Settings of each column, configurations, seeds, code, commands."""
    settings = {figure.name: figure.settings for finding in findings for figure in finding.figures}
    hashes: dict[str, dict[str, None]] = {}
    for finding in findings:
        hashes.setdefault(finding.method, {})[finding.trial.config_hash] = None
    configurations = "; ".join(f"{method} {', '.join(found)}" for method, found in hashes.items())
    seeds = sorted({finding.trial.seed for finding in findings})
    commits = sorted({commit for finding in findings for commit in finding.commits})
    return [
        *(f"{column}: {_measured(settings[column])}" for column in columns),
        f"configurations: {configurations}",
        f"seeds: {', '.join(map(str, seeds))}; trials: {len(findings)}",
        f"code: {', '.join(commits)}",
        *(f"command: {plan.command}" for plan in plans),
    ]


def _measured(settings: Mapping[str, Any]) -> str:
    attack = names.attack(settings if "kind" in settings else None)
    levels = f", mean of {', '.join(settings[LEVELS])}" if LEVELS in settings else ""
    return f"{attack}{levels}; {settings['dataset']}, split {settings['split']}, n = {settings['n']:,}"
