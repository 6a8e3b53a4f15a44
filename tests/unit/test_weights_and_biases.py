"""The mirror: which mode it chooses, and that its failures stay its own."""

from pathlib import Path

import pytest

from configs.schema.logging import LoggingConfig
from experiments.runs import Run
from experiments.weights_and_biases import Mirror, mirror, mode


@pytest.fixture(autouse=True)
def no_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without a key; returns its netrc."""
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    return tmp_path / "netrc"


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


def test_a_failure_costs_one_line_and_is_not_tried_again(capsys: pytest.CaptureFixture[str]) -> None:
    attempts = []

    def start() -> None:
        attempts.append(1)
        raise OSError("no service\nand a long story")

    failing = Mirror(start)
    failing.log({"loss": 1.0}, 1)
    failing.log({"loss": 1.0}, 2)
    failing.close()
    assert len(attempts) == 1
    assert capsys.readouterr().err == "Weights & Biases is off for this run: no service\n"


def test_disabled_means_no_mirror(tmp_path: Path) -> None:
    assert mirror(Run(tmp_path, "tiny", "0123abcd", 0), LoggingConfig(wandb="disabled"), {}) is None
