"""Findings of many runs -> one comparison: like with like, and nothing left out in silence."""

import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any

from configs.errors import UserError
from experiments.analysis import names
from experiments.analysis.comparison import Comparison
from experiments.analysis.finding import LEVELS, Figure, Finding

Table = dict[str, dict[str, dict[int, float]]]


def side_by_side(
    title: str,
    findings: Sequence[Finding],
    columns: Sequence[str],
    baseline: str,
    exclusions: Sequence[str] = (),
    commands: Sequence[str] = (),
) -> Comparison:
    """The methods of findings, paired by seed with the baseline.

    Of a figure those count that were measured in the way that most were, and of a method and seed the first finding.

    Args:
        columns: patterns of names (`accuracy/*/leaf`), in the order of the columns.
        baseline: a method.
        exclusions: what was left out before, a sentence each.
        commands: that made the runs.
    """
    wanted, unmeasured = _columns(columns, findings)
    alike, unlike = _alike([_only(finding, set(wanted)) for finding in findings])
    table, twice = _table(alike, wanted)
    return Comparison(
        title=title,
        baseline=baseline,
        table=table,
        exclusions=[*exclusions, *unlike, *unmeasured, *twice],
        doubts=_doubts(alike),
        provenance=_provenance(alike, wanted, commands),
    )


def fitting(parameters: Iterable[tuple[str, Mapping[str, Any]]], wanted: Mapping[str, Any]) -> list[str]:
    """The methods that have all the wanted values; each method comes with parameters of its own, once or often."""
    fits = (method for method, own in parameters if all(own.get(key) == value for key, value in wanted.items()))
    return list(dict.fromkeys(fits))


def baseline_of(parameters: Sequence[tuple[str, Mapping[str, Any]]], wanted: Mapping[str, Any]) -> str:
    """The only method that fits.

    Raises:
        UserError: there are several or none.
    """
    fits = fitting(parameters, wanted)
    if len(fits) != 1:
        known = "; ".join(dict.fromkeys(method for method, _ in parameters))
        raise UserError(f"the baseline {dict(wanted)} fits {len(fits)} of the methods {known}; name one of them")
    return fits[0]


def _only(finding: Finding, wanted: Collection[str]) -> Finding:
    return replace(finding, figures=[figure for figure in finding.figures if figure.name in wanted])


def _alike(findings: Sequence[Finding]) -> tuple[list[Finding], list[str]]:
    """Of each name the figures with the settings that most runs share; a sentence for each left out."""
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
        left_out += [f"{finding.title}, {name}: {_unlike(one, shared[name])}" for name, one in others.items()]
    return kept, left_out


def _unlike(figure: Figure, shared: str) -> str:
    """What differs, from the settings that are shared."""
    mine, usual = json.loads(figure.key), json.loads(shared)
    keys = [key for key in {**mine, **usual} if mine.get(key) != usual.get(key)]
    return "measured with " + ", ".join(f"{key} {mine.get(key)}, not {usual.get(key)} as most" for key in keys)


def _columns(patterns: Sequence[str], findings: Sequence[Finding]) -> tuple[list[str], list[str]]:
    """The names that fit the patterns; a sentence for each pattern that fits none."""
    known = list(dict.fromkeys(figure.name for finding in findings for figure in finding.figures))
    fitting = {pattern: [name for name in known if fnmatchcase(name, pattern)] for pattern in patterns}
    missing = [f"{pattern}: measured by no run" for pattern, found in fitting.items() if not found]
    return list(dict.fromkeys(name for found in fitting.values() for name in found)), missing


def _table(findings: Sequence[Finding], columns: Sequence[str]) -> tuple[Table, list[str]]:
    """The figures in their places; a sentence for each run of a method and seed that are there already."""
    table: Table = {column: {} for column in columns}
    taken: dict[tuple[str, int], Finding] = {}
    for finding in findings:
        if taken.setdefault((finding.method, finding.seed), finding) is finding:
            for figure in finding.figures:
                if figure.name in table:
                    table[figure.name].setdefault(finding.method, {})[finding.seed] = figure.value
    twice = [finding for finding in findings if taken[finding.method, finding.seed] is not finding]
    return table, [f"{one.title}, run {one.run}: another run of that method and seed counts" for one in twice]


def _doubts(findings: Sequence[Finding]) -> list[str]:
    seeds: dict[tuple[str, str, str], list[int]] = {}
    for finding in findings:
        for figure in finding.figures:
            for reason in figure.suspect:
                seeds.setdefault((finding.method, figure.name, reason), []).append(finding.seed)
    return [
        f"{method}, {name}, seed {', '.join(map(str, found))}: {reason}"
        for (method, name, reason), found in seeds.items()
    ]


def _provenance(findings: Sequence[Finding], columns: Sequence[str], commands: Sequence[str]) -> list[str]:
    """Settings of each column, configurations, seeds, code, commands."""
    settings = {figure.name: figure.settings for finding in findings for figure in finding.figures}
    hashes: dict[str, dict[str, None]] = {}
    for finding in findings:
        hashes.setdefault(finding.method, {})[finding.config_hash] = None
    configurations = "; ".join(f"{method} {', '.join(found)}" for method, found in hashes.items())
    seeds = sorted({finding.seed for finding in findings})
    commits = sorted({commit for finding in findings for commit in finding.commits})
    return [
        *(f"{column}: {_measured(settings[column])}" for column in columns),
        f"configurations: {configurations}",
        f"seeds: {', '.join(map(str, seeds))}; runs: {len(findings)}",
        f"code: {', '.join(commits)}",
        *(f"command: {command}" for command in commands),
    ]


def _measured(settings: Mapping[str, Any]) -> str:
    attack = names.attack(settings if "kind" in settings else None)
    levels = f", mean of {', '.join(settings[LEVELS])}" if LEVELS in settings else ""
    return f"{attack}{levels}; {settings['dataset']}, split {settings['split']}, n = {settings['n']:,}"
