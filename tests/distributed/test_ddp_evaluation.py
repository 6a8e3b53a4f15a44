"""Evaluation on two processes gives the figures of one, and each goes on where the other was killed."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from datamodules.manifest import Manifest
from lightning_modules.ledger import Journal
from tests.integration.measured import experiment, figures, fit

LISTED = {"kind": "auto_attack", "version": "custom", "attacks": ["apgd-ce", "apgd-t"], "steps": 4, "targets": 2}
PGD = {"kind": "pgd", "eps_255": 4, "step_255": 1, "steps": 4, "loss": "ce"}
EVALUATION = {
    "batch_size": 6,
    "attacks": {
        "pgd": PGD,
        "listed": LISTED | {"eps_255": 3},
        "wider": LISTED | {"eps_255": 5},
    },
    "attacked_samples": 13,
    "superclass": {"attacks": {"pgd": PGD, "listed": LISTED | {"eps_255": 3}}, "samples": 11},
    "open_world": {
        "scores": {"mcm": {"kind": "mcm"}, "energy": {"kind": "energy"}},
        "attacks": {"pgd": PGD, "apgd": {"kind": "apgd", "eps_255": 4, "steps": 4}},
        "attacked_scores": ["mcm"],
        "attacked_samples": 7,
        "joint": True,
    },
    "checks": True,
    "check_samples": 5,
}
OOD = {"kind": "open_world", "near_ood": ["near"], "far_ood": ["far"]}


def evaluate(path: Path, devices: int, output: int = 0) -> list[dict[str, Any]]:
    """Rows of `evaluate` in a process of its own, with Lightning's launcher for the second one."""
    overrides = [f"output={path.parent}/{output or devices}", f"trainer.devices={devices}"]
    command = [sys.executable, "-m", "experiments", "evaluate", str(path), *overrides]
    subprocess.run(command, check=True, capture_output=True)
    return [json.loads(line) for line in (folder(path, output or devices) / "results.jsonl").read_text().splitlines()]


def folder(path: Path, output: int) -> Path:
    """Of the only run there."""
    (found,) = (path.parent / str(output)).glob("*/*")
    return found


def settled(run: Path, name: str) -> list[int]:
    """Samples that an attack has put down, over all ranks."""
    found = [Journal(path).rows() for path in run.glob(f"ledger/*/{name}-*/records-*.npy")]
    return sorted(int(index) for rows in found if rows is not None for index in rows["index"])


def same(one: list[dict[str, Any]], two: list[dict[str, Any]]) -> None:
    """Equal rows, up to the order in which a score's samples were summed."""
    without = [[{**row, "value": None} for row in figures(rows)] for rows in (one, two)]
    assert without[0] == without[1]
    assert [row["value"] for row in two] == pytest.approx([row["value"] for row in one], abs=1e-12)


@pytest.mark.slow
def test_two_processes_measure_what_one_does_and_hand_over(tiny_vit: str, tiny_dataset: Path, tmp_path: Path) -> None:
    model = fit(tiny_vit, tiny_dataset, tmp_path / "model")
    path = experiment(tmp_path / "tiny.yaml", model, tiny_dataset, EVALUATION, **OOD)
    one, two = (evaluate(path, devices) for devices in (1, 2))
    same(one, two)
    samples = settled(folder(path, 1), "listed")
    assert len(set(samples)) == len(samples) == 13
    assert settled(folder(path, 2), "listed") == samples
    # The run on two ranks loses what the first of them had settled, and goes on as one process.
    run = folder(path, 2)
    for file in [*run.glob("ledger/*/*/*-0.npy"), run / "evidence-before.npz", run / "results.jsonl"]:
        file.unlink()
    left = len(settled(run, "pgd"))
    assert 0 < left < 13
    same(one, evaluate(path, 1, output=2))
    assert settled(run, "pgd") == samples


@pytest.mark.slow
def test_adversarial_images_of_all_ranks_are_kept(tiny_vit: str, tiny_dataset: Path, tmp_path: Path) -> None:
    wanted = {"attacks": {"pgd": PGD}, "samples": 13, "save_adversarial": "uint8"}
    path = experiment(tmp_path / "tiny.yaml", tiny_vit, tiny_dataset, wanted)
    evaluate(path, 2)
    kept = Manifest.load(folder(path, 2) / "adversarial" / "before" / "pgd")
    assert kept.samples("test") == 13
    assert not list(folder(path, 2).glob("ledger/*/*/images-*.npy"))
