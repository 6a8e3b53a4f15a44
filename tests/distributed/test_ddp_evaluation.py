"""Evaluation on two processes gives the figures of one."""

import json
import subprocess
import sys
from pathlib import Path

import pytest


def measure(experiment: Path, output: Path, devices: int) -> list[dict[str, object]]:
    """Rows of `evaluate` in a process of its own, with Lightning's launcher for the second one."""
    overrides = [f"output={output}", f"trainer.devices={devices}", "evaluation.batch_size=6"]
    subprocess.run(
        [sys.executable, "-m", "experiments", "evaluate", str(experiment), *overrides],
        check=True,
        capture_output=True,
    )
    (results,) = output.glob("*/*/results.jsonl")
    return [json.loads(line) for line in results.read_text().splitlines()]


@pytest.mark.slow
def test_two_processes_measure_what_one_does(experiment_file, tiny_dataset: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    experiment = experiment_file(
        data={
            "kind": "open_world",
            "folder": str(tiny_dataset),
            "batch_size": 8,
            "workers": 0,
            "near_ood": ["near"],
            "far_ood": ["far"],
        },
        evaluation={
            "attacks": {"apgd": {"kind": "apgd", "eps_255": 4, "steps": 4, "targets": 2}},
            "attacked_samples": 13,
        },
    )
    one, two = (measure(experiment, tmp_path / str(devices), devices) for devices in (1, 2))
    identity = ("metric", "split", "tree", "level", "attack_name", "score", "n")
    assert [[row[key] for key in identity] for row in two] == [[row[key] for key in identity] for row in one]
    assert [row["value"] for row in two] == pytest.approx([row["value"] for row in one], abs=1e-12)
