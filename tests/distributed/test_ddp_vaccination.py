"""Vaccination on two processes: the same embeddings, sums and choice as on one, and nearly the same weights."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ExperimentFile
from safetensors.torch import load_file


def vaccinate(path: Path, devices: int) -> Path:
    """The run's folder, of `train` without fine-tuning in a process of its own, with Lightning's launcher for more."""
    output = path.parent / str(devices)
    overrides = [f"output={output}", f"vaccination.cache={output}/cache", f"trainer.devices={devices}"]
    subprocess.run([sys.executable, "-m", "experiments", "train", str(path), *overrides], check=True)
    (run,) = (file.parent for file in output.glob("*/*/vaccination.json"))
    return run


@pytest.mark.slow
def test_two_processes_vaccinate_as_one_does(experiment_file: ExperimentFile, tmp_path: Path) -> None:
    (tmp_path / "bank.txt").write_text("\n".join(["purple disc", "grey square", "striped square", "noise"]))
    bank = {"kind": "file", "path": str(tmp_path / "bank.txt"), "selection": {"names": False, "duplicates": None}}
    settings = {"bank": "own", "epochs": 3, "batch_size": 16, "tail": 0.5, "tail_samples": 2, "margins": [0.0]}
    path = experiment_file(
        module={"kind": "none"},
        attack={"kind": "none"},
        antibodies={"own": bank},
        vaccination=settings | {"strengths": [1.0], "lambdas": [0.0, 0.5], "push": "all"},
    )
    one, two = (vaccinate(path, devices) for devices in (1, 2))
    embeddings = [sorted(run.parents[1].glob("cache/*/embeddings.npy")) for run in (one, two)]
    assert len(embeddings[0]) == len(embeddings[1]) == 2
    for alone, together in zip(*embeddings, strict=True):
        assert alone.parent.name == together.parent.name
        np.testing.assert_allclose(np.load(together), np.load(alone), rtol=0, atol=1e-6)
        assert np.array_equal(np.load(together.parent / "labels.npy"), np.load(alone.parent / "labels.npy"))
    told = [json.loads((run / "vaccination.json").read_text()) for run in (one, two)]
    trials = [[trial["auroc"] for trial in each["trials"]] for each in told]
    assert trials[1] == pytest.approx(trials[0], abs=0.02)  # a pair of images may change places
    weights = [load_file(run / "model" / "immunity.safetensors") for run in (one, two)]
    torch.testing.assert_close(weights[1]["prototypes"], weights[0]["prototypes"], rtol=0, atol=1e-6)
    assert weights[0]["adapter.outward.weight"].abs().max() > 1e-3  # it was zero
    for name in (name for name in weights[0] if name.startswith("adapter")):
        torch.testing.assert_close(weights[1][name], weights[0][name], rtol=0, atol=1e-4)
