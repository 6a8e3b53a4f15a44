"""A measurement that is killed in the middle of an attack goes on, with the figures of one that was not."""

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from lightning_modules.ledger import Journal
from tests.integration.measured import evaluate, experiment, figures, fit

EVALUATION = {
    "attacks": {
        "pgd": {"kind": "pgd", "eps_255": 4, "step_255": 1, "steps": 10, "loss": "ce"},
        "apgd": {"kind": "apgd", "eps_255": 2, "steps": 5},
        "ensemble": {
            "kind": "auto_attack", "version": "custom", "attacks": ["apgd-ce", "apgd-t"], "eps_255": 2, "steps": 20,
            "targets": 2,
        },
    },
    "save_adversarial": "uint8",
    "pictures": 4,
}  # fmt: skip
MATRIX_AND_WORLD = {
    "superclass": {"attacks": {"pgd": EVALUATION["attacks"]["pgd"]}},  # type: ignore[index]
    "open_world": {
        "attacks": {"pgd": EVALUATION["attacks"]["pgd"]}, "attacked_scores": ["mcm", "max_logit"], "joint": True,
    },
}  # fmt: skip
OPEN = {"kind": "open_world", "near_ood": ["near"], "far_ood": ["far"]}
SAMPLES, FOREIGN = 31, 14


@pytest.fixture(scope="module")
def model(tiny_vit: str, tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    return fit(tiny_vit, tiny_dataset, tmp_path_factory.mktemp("fitted") / "model")


def settled(folder: Path, name: str) -> list[int]:
    """Indices of the samples that an attack has put down, in the order in which it did, over all its ranks."""
    paths = folder.glob(f"outputs/*/*/ledger/*/{name}-*/[ra]*-*.npy")  # records, answers
    found = [Journal(path).rows() for path in sorted(paths)]
    return [int(index) for rows in found if rows is not None for index in rows["index"]]


def killed(path: Path, name: str, count: int) -> int:
    """Starts `evaluate`, and kills it once the attack has settled that many samples; returns how many it had."""
    command = [sys.executable, "-m", "experiments", "evaluate", str(path)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while len(settled(path.parent, name)) < count:
            assert process.poll() is None, "it ended before it could be killed"
            time.sleep(0.002)
    finally:
        process.kill()
        process.wait()
    return len(settled(path.parent, name))


@pytest.mark.slow
def test_goes_on_after_a_kill_and_attacks_no_sample_twice(model: str, tiny_dataset: Path, tmp_path: Path) -> None:
    whole = experiment(tmp_path / "whole" / "tiny.yaml", model, tiny_dataset, EVALUATION)
    cut = experiment(tmp_path / "cut" / "tiny.yaml", model, tiny_dataset, EVALUATION)
    expected = evaluate(whole)
    assert 0 < killed(cut, "pgd", 8) < SAMPLES
    assert 0 < killed(cut, "ensemble", 3) < SAMPLES
    assert sorted(settled(cut.parent, "pgd")) == list(range(SAMPLES))
    assert figures(evaluate(cut)) == figures(expected)
    for name in EVALUATION["attacks"]:  # type: ignore[attr-defined]
        assert sorted(settled(cut.parent, name)) == list(range(SAMPLES))
    one, two = (
        np.load(next(path.parent.glob("outputs/*/*/evidence-before.npz")), allow_pickle=False) for path in (whole, cut)
    )
    assert one["pictures/clean"].shape[0] == 4
    for name in ("clean", "label", "clean_prediction"):
        assert np.array_equal(one[f"pictures/{name}"], two[f"pictures/{name}"])


@pytest.mark.slow
def test_a_matrix_and_the_open_world_go_on_after_a_kill(model: str, tiny_dataset: Path, tmp_path: Path) -> None:
    whole, cut = (
        experiment(tmp_path / name / "tiny.yaml", model, tiny_dataset, MATRIX_AND_WORLD, **OPEN)
        for name in ("whole", "cut")
    )
    expected = evaluate(whole)
    counts = {"superclass": SAMPLES, "open_world-test": SAMPLES, "open_world-near": FOREIGN, "open_world-far": FOREIGN}
    for name in ("superclass", "open_world-test", "open_world-far"):
        assert 0 < killed(cut, name, 4) < counts[name]
    assert figures(evaluate(cut)) == figures(expected)
    for name, count in counts.items():
        assert sorted(settled(cut.parent, name)) == list(range(count))
    one, two = (
        np.load(next(path.parent.glob("outputs/*/*/evidence-before.npz")), allow_pickle=False) for path in (whole, cut)
    )
    for name in one:
        assert np.array_equal(one[name], two[name]), name
