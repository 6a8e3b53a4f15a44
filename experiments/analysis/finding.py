"""What one run measured: named figures, and the code that did.

A figure's name is `METRIC/ATTACK/PLACE`: accuracy/clean/leaf, accuracy/pgd20/unicode-1, and accuracy/pgd20/levels, the
mean over the leaf and every level of every tree. Open-world figures are `METRIC/SCORE/SPLIT`, such as auroc/mcm/near.
Points of a curve over radii are `METRIC/sweep@EPS_255/PLACE`. Where a run was measured on several splits, `@SPLIT` is
behind the names of all but the test split's; where it has several figures of a name after that, which only attacks
within several radii are, `@NORM-EPS_255` is behind each.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import fmean
from typing import Any

from experiments.analysis.row import SWEEP, Row

LEVELS = "levels"  # in the place of a level: the mean over all
USUAL = "test"  # the split that names need not tell


@dataclass(frozen=True)
class Figure:
    """One number of a run.

    row     where it is from; of a mean, the first of its rows with the mean's value, and without tree and level.
    places  that a mean is over; empty for others.
    """

    name: str
    row: Row
    places: tuple[str, ...] = ()

    @property
    def value(self) -> float:
        """The number itself."""
        return self.row.value

    @property
    def suspect(self) -> tuple[str, ...]:
        """Reasons not to trust it; empty for most."""
        return self.row.suspect

    @cached_property
    def settings(self) -> Mapping[str, Any]:
        """Two figures are comparable where these are equal: data, samples, attack, levels."""
        levels = {LEVELS: list(self.places)} if self.places else {}
        row = self.row
        return {"dataset": row.dataset, "split": row.split, "n": row.n, **(row.attack or {}), **levels}

    @cached_property
    def key(self) -> str:
        """The settings as text."""
        return json.dumps(self.settings, sort_keys=True)


@dataclass(frozen=True)
class Finding:
    """What a run measured, under the name of its method.

    title   what a reader calls the run, such as `tecoa_openmoji, seed 3`.
    run     its folder or id, in messages.
    """

    method: str
    seed: int
    title: str
    run: str
    config_hash: str
    figures: Sequence[Figure]
    commits: frozenset[str]

    @staticmethod
    def of(rows: Sequence[Row], method: str, seed: int, run: str, config_hash: str) -> "Finding":
        """From the rows of one stage; points of a curve over radii are left out."""
        plain = [row for row in rows if row.attack_name != SWEEP]
        commits = frozenset(str(row.provenance["git_sha"]) for row in rows)
        return Finding(method, seed, f"{method}, seed {seed}", run, config_hash, figures(plain), commits)


def figures(rows: Sequence[Row]) -> tuple[Figure, ...]:
    """Those of one stage of a run, then the means over levels."""
    called = _called(rows)
    found = [
        Figure(name if times == 1 else f"{name}@{(row.attack or {}).get('norm')}-{row.eps_255:g}", row)
        for row, name, times in zip(rows, called, map(Counter(called).__getitem__, called), strict=True)
    ]
    levels: dict[str, list[Figure]] = {}
    for figure in found:
        row = figure.row
        if row.metric == "accuracy" and row.level is not None and not row.superclass and row.attack_name != SWEEP:
            levels.setdefault(f"{row.attack_name} {figure.key}", []).append(figure)
    return (*found, *(_mean(members) for members in levels.values() if len(members) > 1))


def _called(rows: Sequence[Row]) -> list[str]:
    names = [name_of(row) for row in rows]
    splits: dict[str, set[str]] = {}
    for name, row in zip(names, rows, strict=True):
        splits.setdefault(name, set()).add(row.split)
    usual = {name: min(found, key=lambda split: (split != USUAL, split)) for name, found in splits.items()}
    return [name if row.split == usual[name] else f"{name}@{row.split}" for name, row in zip(names, rows, strict=True)]


def name_of(row: Row) -> str:
    """What the figure of a row is called; see the module."""
    if row.score:
        return "/".join([row.metric, row.score, row.split, *([row.attack_name] if row.attack_name else [])])
    attack = f"{SWEEP}@{row.eps_255:g}" if row.attack_name == SWEEP else row.attack_name or "clean"
    return "/".join(part for part in (row.metric, attack, _place(row)) if part)


def _place(row: Row) -> str:
    if row.level is None:
        return row.tree or ""
    return f"{row.tree}-{row.level}" if row.level else "leaf"


def _mean(members: Sequence[Figure]) -> Figure:
    first = members[0].row
    _, at, which = members[0].name.partition("@")
    return Figure(
        name=f"accuracy/{first.attack_name or 'clean'}/{LEVELS}{at}{which}",
        row=replace(first, value=fmean(one.value for one in members), tree=None, level=None),
        places=tuple(sorted(_place(one.row) for one in members)),
    )
