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
    assert "passes per batch" in plan
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
