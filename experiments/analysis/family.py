"""Attacks that differ in one setting alone, and the accuracies that they leave as it varies."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from experiments.analysis import names
from experiments.analysis.row import Row, where

RADIUS, STEPS, STEP = "eps_255", "steps", "step_255"


@dataclass(frozen=True)
class Family:
    """Leaf accuracies under one attack, whose `varied` setting has several values.

    setting  what the attacks have in common, with the data they were run on.
    points   stage -> one row a value, ascending; clean accuracy, where it leads a curve over radii, counts as radius 0.
    """

    varied: str
    setting: Mapping[str, Any]
    points: Mapping[str, Sequence[Row]]

    @property
    def panel(self) -> str:
        """What its curves can be drawn together with: the norm, and the radius where that does not vary."""
        return names.NORMS.get(self.norm, self.norm) if self.varied == RADIUS else names.radius(self.setting)

    @property
    def norm(self) -> str:
        """The attack's norm; empty where it names none."""
        return str(self.setting.get("norm", ""))

    @property
    def curved(self) -> bool:
        """Whether one of the stages was measured at two values or more."""
        return any(len(rows) > 1 for rows in self.points.values())

    def at(self, row: Row) -> float:
        """The varied setting's value in one of the rows."""
        return float((row.attack or {}).get(self.varied, 0))


def over_radii(rows: Sequence[Row], stages: Sequence[str]) -> list[Family]:
    """Families with two radii or more, led by clean accuracy; then attacks run at one radius of the same norm."""
    found = _families(rows, stages, RADIUS)
    curves = [_from_clean(family, rows) for family in found if family.curved]
    norms = {family.norm for family in curves}
    return curves + [family for family in found if not family.curved and family.norm in norms]


def over_steps(rows: Sequence[Row], stages: Sequence[str]) -> list[Family]:
    """Families with two numbers of steps or more within the same radius, ascending by radius in each norm."""
    found = [family for family in _families(rows, stages, STEPS) if family.curved]
    return sorted(found, key=lambda family: (family.norm, family.setting[RADIUS]))


def labels(families: Sequence[Family]) -> list[str]:
    """What a reader calls each: the method, and the settings that tell it from others of that name in its panel."""
    methods = [names.method(family.setting) for family in families]
    told = []
    for family, method in zip(families, methods, strict=True):
        rivals = [
            other.setting
            for other, its in zip(families, methods, strict=True)
            if its == method and other.panel == family.panel
        ]
        unlike = [name for name in family.setting if any(rival.get(name) != family.setting[name] for rival in rivals)]
        told.append(", ".join([method, *(f"{name} {family.setting[name]}" for name in unlike)]))
    return told


def _families(rows: Iterable[Row], stages: Sequence[str], varied: str) -> list[Family]:
    groups: dict[str, list[Row]] = {}
    for row in where(rows, metric="accuracy", level=0):
        if row.attack and varied in row.attack and row.stage in stages:
            groups.setdefault(json.dumps(_setting(row, varied), sort_keys=True), []).append(row)
    return [
        Family(
            varied, _setting(group[0], varied), {stage: _points(where(group, stage=stage), varied) for stage in stages}
        )
        for group in groups.values()
    ]


def _setting(row: Row, varied: str) -> dict[str, Any]:
    """All but the varied setting and the step size, which follows the radius and the number of steps."""
    attack = {name: setting for name, setting in (row.attack or {}).items() if name not in (varied, STEP)}
    return {**attack, "dataset": row.dataset, "split": row.split, "seed": row.seed}


def _points(rows: Iterable[Row], varied: str) -> list[Row]:
    """One row a value: of several the one on the most samples, and of those the lowest, as the attack found more."""
    best: dict[float, Row] = {}
    for row in sorted(rows, key=lambda row: (-row.n, row.value)):
        best.setdefault(float((row.attack or {})[varied]), row)
    return [best[at] for at in sorted(best)]


def _from_clean(family: Family, rows: Iterable[Row]) -> Family:
    """The family with clean accuracy in front of each curve, on the same number of samples where that was measured."""
    data = {name: family.setting[name] for name in ("dataset", "split", "seed")}
    clean = where(rows, metric="accuracy", level=0, attack=None, **data)
    led = {stage: _led(points, where(clean, stage=stage)) for stage, points in family.points.items()}
    return Family(family.varied, family.setting, led)


def _led(points: Sequence[Row], clean: Sequence[Row]) -> list[Row]:
    if len(points) < 2 or not clean:
        return list(points)
    return [min(clean, key=lambda row: (row.n != points[0].n, not row.clean)), *points]
