"""The whole job through the command line, on a tiny data set and a tiny model."""

import json
from pathlib import Path

import numpy as np
import open_clip
import pytest

from experiments.cli import main

EVALUATION = [
    "evaluation.attacks.pgd20=null",
    "evaluation.attacks.apgd=null",
    "evaluation.attacks={pgd: {kind: pgd, eps_255: 4, step_255: 1, steps: 3, loss: ce}}",
    "evaluation.attacked_samples=8",
    "evaluation.eps_sweep_255=[0,4]",
    "evaluation.pictures=2",
    "evaluation.superclass.samples=8",
]
TREES = ["hierarchy.trees.unicode=null", "hierarchy.trees.wordnet=null", "hierarchy.trees={colours: {kind: data}}"]


@pytest.fixture
def settings(tmp_path: Path, tiny_dataset: Path, tiny_vit: str) -> list[str]:
    bank = tmp_path / "bank.txt"
    bank.write_text("purple disc\ngrey square\nstriped square\nblack square\n")
    return [
        f"output={tmp_path / 'outputs'}",
        f"data={{folder: {tiny_dataset}, pack: null, near_ood: [near], far_ood: [far], batch_size: 8, workers: 0}}",
        f"model.name={tiny_vit}",
        "trainer={steps: 3, checkpoint_every: 2, log_every: 1, threads: 1, accelerator: cpu}",
        "logging.wandb=disabled",
        f"antibodies.own={{kind: file, path: {bank}, selection: {{names: false, duplicates: null}}}}",
        f"vaccination={{bank: own, tail: 0.5, tail_samples: 2, epochs: 1, cache: {tmp_path / 'features'}}}",
        "evaluation.open_world.scores.neglabel.bank=own",
        "evaluation.open_world.attacks.pgd10.steps=1",
        "evaluation.open_world.attacked_samples=4",
        *TREES,
        *EVALUATION,
    ]


def run_folder(tmp_path: Path) -> Path:
    (folder,) = (tmp_path / "outputs" / "quickstart").iterdir()
    return folder


def test_the_whole_job_leaves_everything_it_promises(
    settings: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["quickstart", *settings]) == 0
    folder = run_folder(tmp_path)
    printed = capsys.readouterr().out
    assert "before" in printed
    assert "after" in printed
    rows = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    assert {row["stage"] for row in rows} == {"before", "after"}
    attacked = {row["attack_name"] for row in rows}
    assert attacked >= {None, "pgd", "sweep", "superclass", "pgd10>leaf", "pgd10>colours.1", "pgd10>forest"}
    assert {row["split"] for row in rows if row["metric"] == "auroc"} == {"near", "far"}
    vaccinated = [row for row in rows if row["score"] == "s_dis"]
    assert {row["stage"] for row in vaccinated} == {"after"}
    assert {row["attack_name"] for row in vaccinated} >= {None, "pgd10@both", "worst@both"}
    assert json.loads((folder / "vaccination.json").read_text())["antibodies"] == 4
    assert (folder / "model" / "immunity.safetensors").is_file()
    assert all(row["config_hash"] and row["manifest_digest"] and row["versions"]["torch"] for row in rows)
    assert "<html" in (folder / "report.html").read_text()
    assert "train/loss" in (folder / "metrics.csv").read_text()
    assert json.loads((folder / "status.json").read_text())["state"] == "finished"
    open_clip.create_model(f"local-dir:{folder / 'model'}")
    with np.load(folder / "evidence-after.npz") as evidence:
        assert "pictures/adversarial" in evidence
        assert (evidence["depth/colours/1"] > 0).all()  # the default objective is hyperbolic


def test_a_second_call_repeats_nothing_and_other_questions_need_no_training(
    settings: list[str], tmp_path: Path
) -> None:
    assert main(["quickstart", *settings]) == 0
    folder = run_folder(tmp_path)
    model, results = (folder / "model" / "open_clip_model.safetensors", folder / "results.jsonl")
    trained, measured = model.stat().st_mtime_ns, results.stat().st_mtime_ns
    assert main(["quickstart", *settings]) == 0
    assert (model.stat().st_mtime_ns, results.stat().st_mtime_ns) == (trained, measured)
    assert main(["quickstart", *settings, "evaluation.attacks.apgd={kind: apgd, eps_255: 4, steps: 2}"]) == 0
    assert model.stat().st_mtime_ns == trained
    names = {json.loads(line)["attack_name"] for line in results.read_text().splitlines()}
    assert names >= {None, "pgd", "apgd", "sweep"}


def test_train_then_evaluate_measures_the_trained_model(settings: list[str], tmp_path: Path) -> None:
    assert main(["evaluate", "quickstart", *settings]) == 0
    results = run_folder(tmp_path) / "results.jsonl"
    assert {json.loads(line)["stage"] for line in results.read_text().splitlines()} == {"before"}
    assert main(["train", "quickstart", *settings]) == 0
    assert main(["evaluate", "quickstart", *settings]) == 0
    assert {json.loads(line)["stage"] for line in results.read_text().splitlines()} == {"before", "after"}


@pytest.mark.parametrize("verb", [["quickstart"], ["train", "quickstart"], ["evaluate", "quickstart"]])
def test_a_dry_run_writes_nothing(verb: list[str], settings: list[str], tmp_path: Path) -> None:
    assert main([*verb, *settings, "--dry-run"]) == 0
    assert not (tmp_path / "outputs").exists()
