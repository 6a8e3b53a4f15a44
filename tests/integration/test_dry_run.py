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
