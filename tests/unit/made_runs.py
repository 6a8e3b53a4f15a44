"""Folders of runs whose configurations are real ones, and whose figures are made up."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import found_runs

from configs.compose import Composed, compose, to_yaml

FINISHED = {"state": "finished", "step": 20, "steps": 20, "message": "", "updated": "2026-01-01T00:00:00+00:00"}
CURVES = "step,train/loss,train/seconds_per_step\n10,2.5,0.5\n20,1.5,1.5\n"


def configured(output: Path, experiment: str = "tecoa_openmoji", *overrides: str, seed: int = 0) -> Composed:
    """What a run of an experiment below `output` is configured with."""
    composed = _composed(experiment, overrides)
    config = replace(composed.config, seed=seed, output=str(output))
    return replace(composed, config=config, resolved=to_yaml(config))


@cache
def _composed(experiment: str, overrides: tuple[str, ...]) -> Composed:
    return compose(experiment, overrides)


def rows(clean: float, robust: float, seed: int, stage: str = "after", **fields: Any) -> list[dict[str, Any]]:
    """Two levels, clean and attacked; a curve over two radii; one open-world figure."""
    at = {"seed": seed, "stage": stage, **fields}
    attacked = {"attack": found_runs.PGD, "attack_name": "pgd20", "n": 50, **at}
    return [
        found_runs.row(clean, **at),
        found_runs.row(clean + 0.1, level=1, tree="unicode", **at),
        found_runs.row(robust, **attacked),
        found_runs.row(robust + 0.2, level=1, tree="unicode", **attacked),
        found_runs.row(clean, attack_name="sweep", n=50, **at),
        *(swept(eps, robust / eps, **at) for eps in (1.0, 2.0)),
        found_runs.row(0.7, metric="auroc", score="mcm", split="near", level=None, **at),
    ]


def swept(eps_255: float, value: float, **at: Any) -> dict[str, Any]:
    """A point of the curve over radii."""
    attack = {**found_runs.PGD, "eps_255": eps_255, "step_255": eps_255 / 4}
    return found_runs.row(value, attack=attack, attack_name="sweep", n=50, **at)


def under(steps: int, value: float, seed: int) -> dict[str, Any]:
    """Leaf accuracy under PGD of so many steps."""
    attack = {**found_runs.PGD, "steps": steps}
    return found_runs.row(value, attack=attack, attack_name=f"pgd{steps}", stage="after", seed=seed)


def write(
    composed: Composed,
    found: Sequence[Mapping[str, Any]],
    status: Mapping[str, Any] | None = None,
) -> Path:
    """The folder of a run that left these rows; `status` changes what a finished run says."""
    folder = composed.run_folder
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(composed.resolved)
    (folder / "config.inputs.json").write_text("{}")
    (folder / "status.json").write_text(json.dumps({**FINISHED, **(status or {})}))
    (folder / "metrics.csv").write_text(CURVES)
    if found:
        lines = [json.dumps({**row, "config_hash": composed.hash}) + "\n" for row in found]
        (folder / "results.jsonl").write_text("".join(lines))
    return folder


def run(
    output: Path, clean: float, robust: float, experiment: str = "tecoa_openmoji", *overrides: str, seed: int = 0
) -> Path:
    """A finished run, measured after training."""
    return write(configured(output, experiment, *overrides, seed=seed), rows(clean, robust, seed))
