"""`bench`: figures, verdicts, exit codes, on what is quick: the start-up, and attacks on a tiny network."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from configs.errors import ConfigError
from experiments import bench
from experiments.bench import attacks, startup, targets
from experiments.bench.memory import peak_bytes
from experiments.bench.rivals import Budget, Ran, engine, full_schedule, settings
from experiments.bench.subjects import Pictures, Subject, half_radius_255
from experiments.bench.table import Row
from experiments.bench.targets import TARGETS, Target

SAMPLES, SLOTS, CLASSES = 20, 8, 5
LITTLE = Budget(steps=6, targets=2, queries=12)


@pytest.mark.slow
def test_rows_are_printed_written_and_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(startup, "REPEATS", 1)
    strict = TARGETS | {
        "--help / 1 s": Target(1e-6),
        "show / 1 s": Target(1e6),
        "configuration error / 1 s": Target(None),
    }
    monkeypatch.setattr(targets, "TARGETS", strict)
    assert bench.run("startup", tmp_path / "bench.json", check=True) == 1
    assert bench.run("startup") == 0  # a missed target counts only where it is checked
    rows = {row["name"]: row for row in json.loads((tmp_path / "bench.json").read_text())}
    assert {name: row["met"] for name, row in rows.items()} == {
        "--help / 1 s": False,
        "show / 1 s": True,
        "configuration error / 1 s": True,
    }
    assert all(row["ratio"] > 0 for row in rows.values())
    assert "MISSED" in capsys.readouterr().out


def test_an_unknown_bench_is_a_sentence() -> None:
    with pytest.raises(ConfigError, match="did you mean 'startup'"):
        bench.run("start-up")


@pytest.fixture(scope="module")
def subject() -> Subject:
    """A random network whose own predictions are the labels, named as one that has targets."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        layers = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.GELU(), nn.Flatten(), nn.Linear(72, CLASSES)).eval()
        pixels = torch.rand(SAMPLES, 3, 8, 8)
    with torch.no_grad():
        labels = layers(pixels).argmax(1)
    return Subject("mini CLIP", layers, pixels, labels, torch.arange(SAMPLES), 8.0, SLOTS)


@pytest.fixture(scope="module")
def half(subject: Subject) -> Subject:
    radius = half_radius_255(subject.module, Pictures(subject.pixels, subject.labels))
    return replace(subject, name="half-robust mini CLIP", eps_255=radius)


@pytest.mark.slow
def test_every_promise_about_attacks_is_measured(
    subject: Subject, half: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attacks, "subjects", lambda _device: iter([(subject, half)]))
    for name in ("STANDARD", "SHORT", "TINY"):
        monkeypatch.setattr(attacks, name, LITTLE)
    rows = {row.name: row for row in attacks.measure()}
    own = "GPU" if torch.cuda.is_available() else "CPU"
    promised = {
        name for name in TARGETS if "mini CLIP" in name and not ("bf16" in name and name[-3:] not in (own, "nts"))
    }
    assert set(rows) == promised
    assert all(row.ratio is None or math.isfinite(row.ratio) for row in rows.values())
    contest = rows["half-robust mini CLIP, AutoAttack: full schedule / engine"].detail
    assert contest["engine_standing"] == contest["full_schedule_standing"]
    assert 0 < contest["engine_images"] < contest["full_schedule_images"]


@pytest.mark.parametrize("attack", ["APGD-CE", "APGD-T", "FAB-T", "Square", "AutoAttack"])
def test_the_full_schedule_fells_whom_the_engine_fells(half: Subject, attack: str) -> None:
    double = half.frozen.double()
    setting = settings(half.eps_255, LITTLE)[attack]
    own, full = (run(half, setting, lambda pixels: double(pixels.double())) for run in (engine, full_schedule))
    assert torch.equal(own.fallen, full.fallen)
    assert 0 < int(own.fallen.sum()) < SAMPLES


def test_other_fallen_samples_are_an_error(half: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    def blind(some: Subject, *_: object) -> Ran:
        return Ran(torch.zeros(len(some.labels), dtype=torch.bool), 0)

    setting = settings(half.eps_255, LITTLE)["APGD-CE"]
    fallen = full_schedule(half, setting, half.module).fallen
    attacks.confirm_same_fate(half, setting, fallen)
    monkeypatch.setattr(attacks, "engine", blind)
    attacks.confirm_same_fate(half, setting, torch.zeros_like(fallen))
    with pytest.raises(AssertionError, match="fells other samples"):
        attacks.confirm_same_fate(half, setting, fallen)


def test_a_tiny_radius_fells_nobody_and_both_schedules_ask_everything(subject: Subject) -> None:
    steps = LITTLE.steps
    setting = settings(1e-4, LITTLE)["APGD-CE"]
    assert engine(subject, setting, subject.module).images == SAMPLES * (steps + 1)
    assert full_schedule(subject, setting, subject.module).images == SAMPLES * (1 + steps + 1)  # and the clean images


def test_peak_memory_counts_each_tensor_while_it_lives() -> None:
    start = torch.zeros(1000)

    def chain() -> Tensor:
        first = start + 1
        view = first.view(10, 100)
        del first
        second = view * 2
        del view
        return (second + 1).add_(1)

    assert peak_bytes(chain, start.device) == 2 * start.nbytes


def test_frozen_weights_keep_less_for_the_backward_pass() -> None:
    layers = nn.Sequential(nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 64), nn.GELU())
    inputs = torch.rand(100, 64)

    def gradient() -> Tensor:
        pixels = inputs.clone().requires_grad_()
        return torch.autograd.grad(layers(pixels).sum(), pixels)[0]

    loaded = peak_bytes(gradient, inputs.device)
    layers.requires_grad_(False)
    assert peak_bytes(gradient, inputs.device) == loaded - inputs.nbytes  # what the second layer was given


def test_what_the_machine_cannot_measure_is_no_miss() -> None:
    missing = Row("speed", None, 1.8, higher_is_better=True)
    assert missing.met
    assert str(missing).endswith("not measured")
