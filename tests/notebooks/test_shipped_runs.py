"""The runs that the notebooks read: small, of no machine, and in agreement with themselves."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from experiments.analysis import load_evidence, load_rows, load_runs
from experiments.analysis.row import where
from experiments.sweep.ledger import Ledger
from experiments.sweep.plan import Plan

RUNS = Path(__file__).parents[2] / "notebooks" / "runs"
FOLDERS = sorted(path.parent for path in RUNS.glob("*/*/results.jsonl"))
SWEEPS = sorted(path.parent for path in RUNS.glob("sweeps/*/plan.json"))
LARGEST = 3_000_000  # bytes
MACHINE = re.compile(r'(?<![\w.])/(?:home|root|tmp|work|mnt|Users)/|"host": "[^"]|"pid": [1-9]')


def test_all_of_it_is_small_and_names_no_machine() -> None:
    files = [path for path in RUNS.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < LARGEST
    assert not [path for path in files if path.suffix != ".npz" and MACHINE.search(path.read_text())]


def test_every_run_is_of_its_folder() -> None:
    for folder in FOLDERS:
        for row in load_rows(folder):
            assert folder.name == f"{row.provenance['config_hash']}-s{row.seed}"
            assert re.fullmatch("[0-9a-f]{40}", str(row.provenance["git_sha"]))
    assert len(load_runs(RUNS).outcomes) == len(FOLDERS)


@pytest.mark.parametrize("sweep", SWEEPS, ids=lambda path: path.name)
def test_finished_trials_of_a_sweep_are_there(sweep: Path) -> None:
    plan, last = Plan.read(sweep), Ledger(sweep).last()
    finished = [trial for trial in plan.trials if trial.identity in last and last[trial.identity].state == "finished"]
    assert finished
    assert finished == [trial for trial in plan.trials if trial.folder in FOLDERS]


@pytest.mark.parametrize("folder", [folder for folder in FOLDERS if list(folder.glob("evidence-*.npz"))], ids=str)
def test_kept_scores_give_the_figures(folder: Path) -> None:
    """Areas from single scores, computed by another library, are those of the rows, clean and attacked."""
    rows = where(load_rows(folder), metric="auroc")
    compared = 0
    for stage, evidence in load_evidence(folder).items():
        for attack, found in ((None, evidence.scores), ("worst@both", evidence.attacked)):
            for row in where(rows, stage=stage, attack_name=attack):
                if row.score in found and row.split in found[row.score]:
                    sides = [found[row.score][split] for split in ("test", row.split)]
                    inside, outside = (side if attack is None else side[:, 1] for side in sides)
                    truth = np.r_[np.ones(len(inside)), np.zeros(len(outside))]
                    assert roc_auc_score(truth, np.r_[inside, outside]) == pytest.approx(row.value, abs=1e-4)
                    compared += 1
    assert compared


def test_pictures_come_with_their_credit() -> None:
    credit = (RUNS / "NOTICE.md").read_text()
    assert "CC BY-SA 4.0" in credit
    assert "All emojis designed by OpenMoji" in credit
    for folder in FOLDERS:
        assert folder.parent.name in credit


def test_status_says_finished() -> None:
    assert {json.loads((folder / "status.json").read_text())["state"] for folder in FOLDERS} == {"finished"}
