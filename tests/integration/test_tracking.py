"""A run and its W&B server: what the server has afterwards, and that nothing of it stops, slows or changes the run."""

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import get_args

import pytest
import torch
import torch.nn.functional as F
from conftest import ExperimentFile

from configs.compose import compose
from configs.schema.model import ModelConfig
from experiments.evaluate import evaluate
from experiments.measure import _fired
from experiments.runs import Run
from experiments.sweep.claim import _begun
from experiments.tracking import introduction
from experiments.train import train
from lightning_modules.backbones import load_backbone
from lightning_modules.open_world.adapter import Adapter
from lightning_modules.open_world.immunity import Immunity
from tests.fake_wandb import KEY, Behaviour, FakeWandb
from tests.integration.runs import Fault, Signal, faulty, logged, same, weights
from tests.integration.test_resume import wait_until

STEPS = 6
PATIENCE_S = 6.0
SLACK_S = 15.0  # for wandb to write offline what the server did not take, and for a machine that is busy
QUICK = {"steps": STEPS, "accelerator": "cpu", "checkpoint_every": 3, "log_every": 1, "threads": 1}


@pytest.fixture(autouse=True)
def no_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "staging"))


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeWandb]:
    """A server that works, until it is told otherwise, and an account there."""
    server = FakeWandb()
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    with server.serving():
        yield server


@pytest.fixture
def plain(experiment_file: ExperimentFile, tmp_path: Path) -> tuple[Run, float]:
    """The same run without W&B, and the seconds that it took."""
    composed = compose(experiment_file(trainer=QUICK, output=str(tmp_path / "plain")))
    began = time.monotonic()
    assert train(composed) == 0
    return Run.of(composed), time.monotonic() - began


def sync(*arguments: str) -> str:
    """What `wandb sync` says."""
    command = [str(Path(sys.executable).with_name("wandb")), "sync", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stderr


def steps(fake: FakeWandb, identity: str) -> list[int]:
    """Of the rows of the run's history that training logged, in their order."""
    rows = fake.history[identity]
    return [rows[place]["trainer/global_step"] for place in sorted(rows) if "train/loss" in rows[place]]


@pytest.mark.slow
def test_the_server_has_the_run_its_figures_and_its_files(
    experiment_file: ExperimentFile, fake: FakeWandb, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMMUNOCLIP_SWEEP", "ablation")
    attack = {"kind": "pgd", "eps_255": 8.0, "step_255": 4.0, "steps": 2}
    evaluation = {"samples": 12, "attacks": {"pgd": attack}, "pictures": 4, "open_world": None, "checks": False}
    logging = {"wandb": "auto", "tags": ["eps"]}
    composed = compose(experiment_file(trainer=QUICK, logging=logging, evaluation=evaluation))
    run = Run.of(composed)
    assert train(composed) == 0
    assert evaluate(composed, stage="after") == 0
    identity = f"tiny-{composed.hash}-s0"
    (told,) = fake.runs.values()
    assert (told["name"], told["displayName"], told["groupName"]) == (identity, identity, "ablation")
    assert (told["project"], told["jobType"], told["tags"]) == ("immunoclip", "train", ["eps"])
    assert steps(fake, identity) == list(range(1, STEPS + 1))
    config = json.loads(told["config"])
    assert config["experiment"]["value"]["attack"]["eps_255"] == 8.0
    assert config["run"]["value"]["config_hash"] == composed.hash
    assert config["run"]["value"]["manifest_digest"]
    results, model = fake.artifacts[f"results-{identity}"], fake.artifacts[f"model-{identity}"]
    assert results["type"] == "results"
    assert set(results["files"]) == {
        "config.yaml", "config.inputs.json", "status.json", "results.jsonl", "metrics.csv", "evidence-after.npz"
    }  # fmt: skip
    for name, content in results["files"].items():
        assert content == (run.folder / name).read_bytes()
    assert json.loads(results["files"]["status.json"])["state"] == "finished"
    assert set(model["files"]) == {path.name for path in run.model.iterdir()}
    assert {alias["alias"] for alias in model["aliases"]} >= {"last"}
    metrics = json.loads(model["metadata"])["metrics"]
    rows = [json.loads(line) for line in run.results.read_text().splitlines()]
    leaf = {row["attack_name"]: row["value"] for row in rows if row["metric"] == "accuracy" and row["level"] == 0}
    assert metrics["accuracy/clean/leaf"] == leaf[None]
    assert metrics["accuracy/pgd/leaf"] == leaf["pgd"]
    out, err = capfd.readouterr()
    assert KEY not in out + err + (run.folder / "wandb" / "client.log").read_text()
    assert "Weights & Biases" not in err


@pytest.mark.slow
def test_a_server_that_never_works_costs_a_line_and_little_time(
    experiment_file: ExperimentFile,
    fake: FakeWandb,
    plain: tuple[Run, float],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    for behaviour in get_args(Behaviour)[1:]:
        fake.behaviour = behaviour
        logging, place = {"wandb": "online", "patience": PATIENCE_S / 2}, str(tmp_path / behaviour)
        composed = compose(experiment_file(trainer=QUICK, logging=logging, output=place))
        began = time.monotonic()
        assert train(composed) == 0
        assert time.monotonic() - began < plain[1] + PATIENCE_S + SLACK_S
        complete(Run.of(composed), plain[0])
        told = [line for line in capfd.readouterr().err.splitlines() if "Weights & Biases" in line]
        assert len(told) == 1, behaviour
        assert "can't be reached" in told[0]
        assert "wandb sync" in told[0]
        assert len(list((Run.of(composed).folder / "wandb").glob("offline-run-*"))) == 1


@pytest.mark.slow
def test_a_server_that_dies_on_the_way(
    experiment_file: ExperimentFile, fake: FakeWandb, plain: tuple[Run, float], capfd: pytest.CaptureFixture[str]
) -> None:
    composed = compose(experiment_file(trainer=QUICK, logging={"wandb": "online", "patience": PATIENCE_S}))
    identity = f"tiny-{composed.hash}-s0"
    outage = Outage(2, fake)
    with faulty(outage):
        assert train(composed) == 0
    assert time.monotonic() - outage.began < plain[1] + PATIENCE_S + SLACK_S
    complete(Run.of(composed), plain[0])
    told = [line for line in capfd.readouterr().err.splitlines() if "Weights & Biases" in line]
    assert told
    assert "wandb sync" in told[-1]
    fake.behaviour = "works"
    sync("--include-online", str(Run.of(composed).folder / "wandb"))
    assert list(fake.runs) == [identity]
    assert set(steps(fake, identity)) == set(range(1, STEPS + 1))
    assert f"results-{identity}" in fake.artifacts


@pytest.mark.slow
def test_attempts_offline_are_one_run_after_a_sync(
    experiment_file: ExperimentFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    composed = compose(experiment_file(trainer=QUICK, logging={"wandb": "auto"}))
    identity = f"tiny-{composed.hash}-s0"
    with faulty(Signal(3, signal.SIGTERM), first=True):
        assert train(composed) == 143
    assert train(composed) == 0
    folder = Run.of(composed).folder / "wandb"
    assert len(list(folder.glob(f"offline-run-*-{identity}"))) == 2
    fake = FakeWandb()
    for name, value in fake.environment.items():
        monkeypatch.setenv(name, value)
    with fake.serving():
        sync(str(folder))
    assert list(fake.runs) == [identity]
    assert steps(fake, identity) == list(range(1, STEPS + 1))
    assert fake.artifacts[f"results-{identity}"]["files"].keys() >= {"metrics.csv", "config.yaml"}


@pytest.mark.slow
def test_a_tag_in_the_browser_stops_the_run_which_then_resumes(
    experiment_file: ExperimentFile, fake: FakeWandb, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(introduction, "POLL_S", 0.2)
    endless = {**QUICK, "steps": 2_000, "log_every": 100}
    composed = compose(experiment_file(trainer=endless, logging={"wandb": "online", "tags": ["eps"]}))
    run, identity = Run.of(composed), f"tiny-{composed.hash}-s0"

    def ask() -> None:
        while identity not in fake.tags:
            time.sleep(0.1)
        fake.tags[identity] = ["eps", "stop"]

    threading.Thread(target=ask, daemon=True).start()
    assert train(composed) == 130
    assert run.status is not None
    assert run.status.state == "interrupted"
    assert 0 < run.status.step < endless["steps"]
    assert "asks this run to stop" in capfd.readouterr().err
    assert fake.tags[identity] == ["eps"]  # so that the next attempt goes on


def test_what_fired_is_the_nearest_antibody_where_a_picture_is_turned_away(tiny_vit: str) -> None:
    generator = torch.Generator().manual_seed(0)
    backbone = load_backbone(ModelConfig(tiny_vit))
    texts = F.normalize(torch.randn(8, 16, generator=generator), dim=1)
    names, captions = ("cat", "dog", "car"), tuple(f"antibody {number}" for number in range(5))
    immunity = Immunity(
        Adapter(16, 4), texts[:3], torch.ones(3), texts[3:], torch.full((5,), -1), class_names=names, captions=captions
    )
    pictures = torch.randint(0, 256, (40, 3, 32, 32), generator=generator, dtype=torch.uint8)
    with torch.no_grad():
        embeddings = backbone.embed_image(pictures / 255)
        points = immunity.adapt(embeddings)
    immunity.calibrate(embeddings, tail=0.5, rejected=0.3, tail_samples=10)
    backbone.immunity = immunity
    shown = {"pictures/clean": pictures.numpy(), "pictures/adversarial": pictures.flip(0).numpy()}
    found = _fired(backbone, shown, batch_size=16)
    known = (points @ texts[:3].T).max(1).values - (points @ texts[3:].T).max(1).values
    thresholds = immunity.threshold[(points @ texts[:3].T).argmax(1)]
    nearest = (points @ texts[3:].T).argmax(1)
    expected = ["" if known[n] >= thresholds[n] else captions[nearest[n]] for n in range(40)]
    assert found["pictures/clean_antibody"] == expected
    assert found["pictures/adversarial_antibody"] == expected[::-1]
    assert 0 < expected.count("") < 40


RUN = """
import json, os, signal, sys, time
from pathlib import Path
from experiments.tracking.courier import Courier
courier = Courier(Path(sys.argv[1]) / "client.log", print)
courier.send(json.loads(sys.argv[2]))
courier.send({"kind": "log", "metrics": {"loss": 1.0}, "step": 1})
print(courier._process.pid, flush=True)
time.sleep(600)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="processes are looked for where Linux has them")
def test_nothing_of_the_mirror_outlives_a_run_that_is_killed(experiment_file: ExperimentFile, tmp_path: Path) -> None:
    composed = compose(experiment_file(trainer=QUICK, logging={"wandb": "offline"}))
    told = introduction.introduction(Run.of(composed), composed.config) | {"folder": str(tmp_path)}
    command = [sys.executable, "-c", RUN, str(tmp_path), json.dumps(told)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        client = int(process.stdout.readline())
        wait_until(lambda: bool(list(tmp_path.glob("wandb/offline-run-*/*.wandb"))), process)
        pids = [client, *descendants(client)]
        process.kill()
    assert len(pids) > 1  # wandb has a process of its own, in a session of its own
    began = time.monotonic()
    while any(_begun(pid) is not None for pid in pids):
        assert time.monotonic() - began < 2 * SLACK_S
        time.sleep(0.1)
    assert "Traceback" not in (tmp_path / "client.log").read_text()


def descendants(pid: int) -> list[int]:
    """Processes that a process started, and those that they started."""
    children = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            children += [int(path.parent.name)] if int(path.read_text().rpartition(")")[2].split()[1]) == pid else []
    return [one for child in children for one in (child, *descendants(child))]


class Outage(Fault):
    """Of a server that hangs once a run has begun."""

    def __init__(self, step: int, fake: FakeWandb) -> None:
        super().__init__(step)
        self.fake = fake

    def strike(self) -> None:
        while not self.fake.runs:
            time.sleep(0.05)
        self.fake.behaviour, self.began = "hangs", time.monotonic()


def complete(run: Run, plain: Run) -> None:
    """The run has everything that it has without W&B."""
    assert logged(run) == logged(plain)
    assert same(weights(run.model), weights(plain.model))
    assert run.finished
