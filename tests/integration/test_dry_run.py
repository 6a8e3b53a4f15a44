"""Every shipped experiment can be planned: its model builds, its cost is counted, and nothing is written."""

from pathlib import Path

import pytest

from configs.layers import experiment_names
from experiments.cli import main


@pytest.mark.parametrize("name", experiment_names())
def test_every_experiment_plans(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("IMAGENET", str(tmp_path / "imagenet"))
    assert main(["train", name, f"output={tmp_path / 'outputs'}", "--dry-run"]) == 0
    plan = capsys.readouterr().out
    assert "config hash" in plan
    assert "trained of" in plan
    if "  training pass" in plan:
        assert all(fact in plan for fact in ("passes per batch", "memory per GPU", "GPU-hours"))
    else:
        assert "0 trained of" in plan  # a vaccination trains no tower
    assert not (tmp_path / "outputs").exists()


def test_the_cost_of_a_measurement_is_that_of_a_sample_that_stands(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """AutoAttack by hand: APGD-CE and 9 x APGD-T of 101 questions, 9 x FAB of 100 steps and checks, 5,001 of Square."""
    given = ["evaluate", "quickstart", f"output={tmp_path}", "--attacks", "pgd20,aa", "--eps", "2", "--dry-run"]
    assert main(given) == 0
    plan = capsys.readouterr().out
    forwards, backwards = 10 * 101 + 9 * 200 + 5001, 10 * 101 + 9 * 100
    assert f"at most {forwards:,} forward, {backwards:,} backward" in plan
    assert "at most 20 forward, 20 backward" in plan


def test_time_goes_with_the_gpu_and_the_share_of_its_rate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Half the rate takes twice the hours; an A100 takes 989 / 312 times an H100's in bf16."""
    monkeypatch.setenv("IMAGENET", str(tmp_path / "imagenet"))
    hours = []
    for given in ([], ["--mfu", "0.175"], ["--gpu", "a100"]):
        assert main(["train", "tecoa_vit_b32_imagenet", f"output={tmp_path}", "--dry-run", *given]) == 0
        line = next(line for line in capsys.readouterr().out.splitlines() if "GPU-hours" in line)
        hours.append(float(line.split()[-2]))
    assert hours[1] == pytest.approx(2 * hours[0], rel=0.01)
    assert hours[2] == pytest.approx(hours[0] * 989 / 312, rel=0.01)


def test_a_machine_without_a_plan_is_a_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "quickstart", "--gpu", "a100"]) == 2
    assert "--dry-run" in capsys.readouterr().err
