"""Small copies of runs tell what the runs told, and nothing of the machine that they were made on."""

import json
from pathlib import Path

import found_runs
import numpy as np
import pytest

from configs.errors import UserError
from experiments.analysis import load_rows
from experiments.analysis.loading import load_curves, load_evidence
from experiments.analysis.shrink import PICTURES, main, shrink, shrink_sweep

HOST = "mathilda.example.org"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return measured(tmp_path / "far" / "away", "tiny", seed=0)


def measured(outputs: Path, name: str, seed: int) -> Path:
    """A run's folder with all that is kept, and a checkpoint that is not."""
    folder = outputs / name / f"c0ffee12-s{seed}"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / "last.ckpt").write_bytes(b"weights")
    (folder / "config.yaml").write_text(f"name: {name}\nseed: {seed}\noutput: {outputs}\n")
    (folder / "config.inputs.json").write_text(json.dumps({"experiment": name, "overrides": [f"output={outputs}"]}))
    status = {"state": "finished", "step": 9, "steps": 9, "message": "", "pid": 4711, "host": HOST}
    (folder / "status.json").write_text(json.dumps(status))
    (folder / "metrics.csv").write_text("step,train/loss\n1,2.5\n2,1.25\n")
    rows = [{**row, "seed": seed} for row in found_runs.rows()]
    (folder / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    random = np.random.default_rng(0)
    pairs = {f"pictures/{kind}": random.integers(0, 256, (40, 3, 8, 8), np.uint8) for kind in ("clean", "adversarial")}
    labels = ("label", "clean_prediction", "adversarial_prediction")
    np.savez(
        folder / "evidence-after.npz", **pairs, **{f"pictures/{name}": np.arange(40) % 3 for name in labels},
        class_names=np.array(["a", "b", "c"]), settings=f"folder {outputs}", **{"scores/mcm/test": random.random(50)},
    )  # fmt: skip
    return folder


def texts(folder: Path) -> str:
    return "".join(path.read_text() for path in folder.rglob("*") if path.suffix != ".npz" and path.is_file())


def test_rows_and_curves_are_the_runs_own(run: Path, tmp_path: Path) -> None:
    copy = shrink(run, tmp_path / "copies")
    assert copy == tmp_path / "copies" / "tiny" / "c0ffee12-s0"
    own, copied = load_rows(run), load_rows(copy)
    assert [row.value for row in copied] == [row.value for row in own]
    assert [row.question for row in copied] == [row.question for row in own]
    assert [row.provenance["versions"] for row in copied if row.provenance["versions"]] == [
        own[0].provenance["versions"]
    ]
    for name, (steps, values) in load_curves(run).items():
        assert np.array_equal(load_curves(copy)[name], (steps, values))


def test_only_the_figures_that_are_asked_for(run: Path, tmp_path: Path) -> None:
    rows = load_rows(shrink(run, tmp_path / "copies", ["accuracy/*/leaf", "auroc/mcm/far"]))
    assert {(row.metric, row.level) for row in rows} == {("accuracy", 0), ("auroc", None)}
    assert {row.split for row in rows if row.metric == "auroc"} == {"far"}
    assert len(rows) == len(
        [row for row in load_rows(run) if row.level == 0 or (row.metric, row.split) == ("auroc", "far")]
    )


def test_evidence_loses_pictures_and_digits_alone(run: Path, tmp_path: Path) -> None:
    own, copied = (load_evidence(folder)["after"] for folder in (run, shrink(run, tmp_path / "copies")))
    assert own.pictures is not None
    assert copied.pictures is not None
    assert np.array_equal(copied.pictures.clean, own.pictures.clean[:PICTURES])
    assert np.array_equal(copied.scores["mcm"]["test"], own.scores["mcm"]["test"].astype(np.float32))


def test_nothing_tells_of_the_machine(run: Path, tmp_path: Path) -> None:
    copy = shrink(run, tmp_path / "copies")
    told = texts(copy)
    assert str(tmp_path) not in told
    assert HOST not in told
    assert "4711" not in told
    with np.load(copy / "evidence-after.npz") as kept:
        assert "settings" not in kept.files
    assert not (copy / "checkpoints").exists()
    assert "output: outputs\n" in (copy / "config.yaml").read_text()


def test_the_same_run_gives_the_same_bytes(run: Path, tmp_path: Path) -> None:
    one, other = (shrink(run, tmp_path / name) for name in ("one", "other"))
    for path in (path for path in one.rglob("*") if path.is_file()):
        assert path.read_bytes() == (other / path.relative_to(one)).read_bytes()


def test_of_a_sweep_the_finished_trials(tmp_path: Path) -> None:
    outputs = tmp_path / "far" / "away"
    runs = [measured(outputs, "tiny", seed) for seed in (0, 1)]
    sweep = outputs / "sweeps" / "seeds"
    sweep.mkdir(parents=True)
    trials = [
        {"identity": f"trial{seed}", "parameters": {"seed": seed, "experiment": "tiny"}, "overrides": [f"seed={seed}"],
         "config_hash": "c0ffee12", "seed": seed, "folder": f"../../tiny/{folder.name}"}
        for seed, folder in enumerate(runs)
    ]  # fmt: skip
    plan = {"name": "seeds", "command": f"sweep seeds output={outputs}", "metric": None, "baseline": {}, "columns": []}
    (sweep / "plan.json").write_text(json.dumps({**plan, "trials": trials}))
    event = {"state": "finished", "folder": str(runs[0]), "log": f"{sweep}/logs/a.log", "host": HOST, "pid": 4711}
    (sweep / "trials.jsonl").write_text(json.dumps({"trial": "trial0", **event}) + "\n")
    copy = shrink_sweep(sweep, tmp_path / "copies")
    assert [path.name for path in (tmp_path / "copies" / "tiny").iterdir()] == ["c0ffee12-s0"]
    assert not list((tmp_path / "copies").rglob("*.npz"))
    told = texts(tmp_path / "copies")
    assert str(outputs) not in told
    assert HOST not in told
    assert json.loads((copy / "plan.json").read_text())["command"] == "sweep seeds output=outputs"


def test_a_folder_without_results_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match="no measured run"):
        shrink(tmp_path, tmp_path / "copies")
    assert main([str(tmp_path), "--to", str(tmp_path / "copies")]) == 2
    assert "no measured run" in capsys.readouterr().err
