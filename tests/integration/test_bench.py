"""`bench`: figures, verdicts, exit codes. What is measured here is the start-up, which is quick."""

import json
from pathlib import Path

import pytest

from configs.errors import ConfigError
from experiments import bench
from experiments.bench import startup, targets
from experiments.bench.targets import TARGETS, Target


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
