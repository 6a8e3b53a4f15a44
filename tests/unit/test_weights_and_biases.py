"""The mirror: which mode and names it chooses, what it shows of a run, and that a run never waits for it."""

import json
import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from found_runs import row, rows, write

from configs.schema import ExperimentConfig
from configs.schema.attack import PGD
from configs.schema.data import ClassificationData
from configs.schema.evaluation import EvaluationConfig
from configs.schema.logging import LoggingConfig
from experiments.atomic import write_text
from experiments.runs import Run
from experiments.tracking.account import mode
from experiments.tracking.courier import WAITING, Courier
from experiments.tracking.introduction import SWEEP, identity, introduction, job_type, noted
from experiments.tracking.measured import PICTURES, measured
from experiments.tracking.mirror import Mirror, mirrored
from experiments.tracking.tables import pictures_table
from lightning_modules.hierarchy import Tree

CONFIG = ExperimentConfig(name="tiny", data=ClassificationData(folder="d"))


@pytest.fixture(autouse=True)
def no_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without a key; returns its netrc."""
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL", "WANDB_SWEEP_ID", "WANDB_RUN_ID", SWEEP):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    return tmp_path / "netrc"


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path / "run", "tiny", "0123abcd", 3)


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stands for the process that talks to W&B: a script that never reads, and notes its process."""
    script = tmp_path / "client"
    script.write_text(f"#!/bin/sh\necho $$ > {tmp_path / 'process'}\nexec sleep 600\n")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    return tmp_path / "process"


def test_auto_is_offline_without_a_key_and_online_with_one(no_account: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert mode("auto") == "offline"
    no_account.write_text("machine api.wandb.ai login user password 0123\n")
    assert mode("auto") == "online"
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org")  # the key is for another server
    assert mode("auto") == "offline"
    monkeypatch.setenv("WANDB_API_KEY", "0123")
    assert mode("auto") == "online"
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert mode("auto") == "disabled"
    assert mode("offline") == "offline"


def test_attempts_share_an_id_that_wandb_allows(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert identity(run) == "tiny-0123abcd-s3"
    other = identity(replace(run, name="größer als: 'alles'" + 100 * "x"))
    assert set(other) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.")
    assert len(other) < 128
    assert other.endswith("-0123abcd-s3")
    monkeypatch.setenv("WANDB_RUN_ID", "agents-own")
    assert identity(run) == "tiny-0123abcd-s3"
    monkeypatch.setenv("WANDB_SWEEP_ID", "abc")  # `wandb agent` waits for the run that it has announced
    assert identity(run) == "agents-own"
    write_text(noted(run), identity(run))  # as the mirror does
    monkeypatch.delenv("WANDB_SWEEP_ID")
    assert identity(run) == "agents-own"  # of a later attempt that no agent starts


def test_the_group_is_the_configured_one_or_the_sweep_or_the_experiment(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert introduction(run, CONFIG)["group"] == "tiny"
    monkeypatch.setenv(SWEEP, "ablation")
    assert introduction(run, CONFIG)["group"] == "ablation"
    named = replace(CONFIG, logging=LoggingConfig(group="mine"))
    assert introduction(run, named)["group"] == "mine"


def test_the_introduction_is_json_and_its_configuration_has_none_of_a_sweeps_keys(run: Run) -> None:
    told = json.loads(json.dumps(introduction(run, CONFIG)))
    assert told["config"].keys() == {"experiment", "run"}  # W&B locks a sweep's keys, such as optim.lr
    assert told["config"]["experiment"]["data"]["folder"] == "d"
    assert told["config"]["run"]["config_hash"] == "0123abcd"


def test_the_job_is_what_the_run_has_done(run: Run) -> None:
    attacked = EvaluationConfig(attacks={"pgd": PGD(eps_255=1.0, step_255=0.5, steps=1)})
    assert job_type(run, CONFIG) == "eval"
    assert job_type(run, replace(CONFIG, evaluation=EvaluationConfig(eps_sweep_255=[1.0]))) == "attack"
    assert job_type(run, replace(CONFIG, evaluation=attacked)) == "attack"
    run.start()
    assert job_type(run, replace(CONFIG, evaluation=attacked)) == "train"
    run.report(state="finished")
    assert job_type(run, CONFIG) == "train"  # evaluated afterwards


def test_a_client_that_never_reads_keeps_nobody_waiting_and_is_killed(tmp_path: Path, client: Path) -> None:
    began = time.monotonic()
    stuck = Courier(tmp_path / "log", print)
    for step in range(2 * WAITING):
        stuck.send({"kind": "log", "metrics": {"loss": 0.5}, "padding": 1000 * "x", "step": step})
    assert time.monotonic() - began < 5
    assert WAITING - 200 < stuck.lost <= WAITING  # the pipe holds some
    while not client.exists() or not client.read_text():
        time.sleep(0.01)
    began = time.monotonic()
    assert not stuck.close(0.2)
    assert time.monotonic() - began < 2
    with pytest.raises(ProcessLookupError):
        os.kill(int(client.read_text()), 0)


@pytest.mark.usefixtures("client")
def test_what_the_client_lacks_is_told_in_one_line(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("experiments.tracking.mirror.FALLBACK_S", 0.1)
    with mirrored(run, replace(CONFIG, logging=LoggingConfig(wandb="offline", patience=0.1))) as mirror:
        mirror.log({"loss": 1.0}, 1)
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1
    assert f"wandb sync --include-online {run.folder / 'wandb'}" in told[0]


def test_a_client_that_can_not_start_costs_one_line(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with mirrored(run, CONFIG) as mirror:
        mirror.log({"loss": 1.0}, 1)
        mirror.log({"loss": 1.0}, 2)
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1
    assert told[0].startswith("Weights & Biases is off for this run: ")


@pytest.mark.parametrize("name", ["LOCAL_RANK", "NODE_RANK"])
def test_disabled_and_further_ranks_start_nothing(run: Run, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("experiments.tracking.mirror.Courier", None)  # which to start is an error
    with mirrored(run, replace(CONFIG, logging=LoggingConfig(wandb="disabled"))) as mirror:
        mirror.log({"loss": 1.0}, 1)
    monkeypatch.setattr("experiments.tracking.mirror.rank", lambda: int(os.environ.get("LOCAL_RANK", "0")))
    monkeypatch.setenv(name, "1")
    with mirrored(run, CONFIG) as mirror:
        mirror.log({"loss": 1.0}, 1)


def test_a_person_in_the_browser_stops_the_fit_as_a_signal_does(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    Mirror(run, CONFIG)._heard({"kind": "stop"})
    assert run.stop.signal_number == signal.SIGINT
    assert "stop" in capsys.readouterr().err


def test_figures_have_the_names_that_a_sweep_asks_for(tmp_path: Path) -> None:
    folder = write(tmp_path / "run", rows())
    before, after = (measured(folder, stage) for stage in ("before", "after"))
    written = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    leaf = {one["stage"]: one["value"] for one in written if one["attack_name"] == "pgd20" and one["level"] == 0}
    assert after["summary"]["accuracy/pgd20/leaf"] == leaf["after"]
    assert before["summary"]["before/accuracy/pgd20/leaf"] == leaf["before"]
    assert len(after["table"]["data"]) == sum(one["stage"] == "after" for one in written)
    line = dict(zip(after["table"]["columns"], after["table"]["data"][0], strict=True))
    assert line["metric"] == "accuracy"
    assert line["value"] == written[len(before["table"]["data"])]["value"]


def test_pictures_come_with_predictions_paths_and_antibodies(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    names, count = np.array(["cat", "dog", "car"]), PICTURES + 5
    clean = random.integers(20, 236, (count, 3, 4, 4)).astype(np.uint8)
    added = random.choice([-4, 4], clean.shape)
    labels = random.integers(0, 3, count)
    arrays = {"clean": clean, "adversarial": (clean + added).astype(np.uint8), "label": labels}
    fooled = (labels + 1) % 3
    said = {"clean_antibody": np.full(count, ""), "adversarial_antibody": np.full(count, "a fox")}
    arrays |= {"clean_prediction": labels, "adversarial_prediction": fooled, **said}
    folder = write(tmp_path / "run", [row(stage="after")])
    named = {f"pictures/{name}": array for name, array in arrays.items()}
    np.savez_compressed(folder / "evidence-after.npz", **named, class_names=names, settings="")
    tree = Tree("kinds", (("cat", "dog", "car"), ("animal", "thing"), ("entity",)), ((0, 0, 1), (0, 0)))
    told = json.loads(json.dumps(measured(folder, "after", [tree])["pictures"]))
    table = pictures_table(told)
    lines = [dict(zip(table.columns, line, strict=True)) for line in table.data]
    assert len(lines) == PICTURES
    path = {"cat": "cat < animal", "dog": "dog < animal", "car": "car < thing"}
    for number, line in enumerate(lines):
        assert line["class"] == line["clean prediction"] == names[labels[number]]
        assert line["adversarial prediction"] == names[fooled[number]]
        assert line["kinds: adversarial"] == path[names[fooled[number]]]
        assert (line["clean antibody"], line["adversarial antibody"]) == ("", "a fox")
    factor = 127 // 4
    drawn = np.asarray(lines[7][f"perturbation x{factor}"].image)
    assert (drawn == 127 + factor * added[7].transpose(1, 2, 0)).all()
    assert (np.asarray(lines[7]["clean"].image) == clean[7].transpose(1, 2, 0)).all()
