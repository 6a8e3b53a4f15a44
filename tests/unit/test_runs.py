"""A run's folder, its status and its lock."""

import json
import os
import signal
import time
from pathlib import Path

import pytest
from conftest import ExperimentFile
from lightning.pytorch.utilities import rank_zero_only

from configs.compose import compose
from configs.errors import TrainingError, UserError
from experiments.atomic import replacing
from experiments.runs import Run, rank
from experiments.status import Status
from experiments.stop import Interrupted


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path / "outputs" / "tiny" / "0123abcd-s0", "tiny", "0123abcd", 0)


def test_status_follows_the_work(run: Run) -> None:
    with run.recorded():
        assert run.status is not None
        assert (run.status.state, run.status.pid) == ("running", os.getpid())
        run.report(step=7, steps=9)
    assert run.finished
    assert (run.status.step, run.status.steps) == (7, 9)


@pytest.mark.parametrize(
    ("error", "state", "message"),
    [
        (Interrupted(signal.SIGTERM, "stopped at step 3"), "interrupted", "stopped at step 3"),
        (KeyboardInterrupt(), "interrupted", "SIGINT"),
        (TrainingError("the loss is nan"), "failed", "the loss is nan"),
        (ValueError("surprise"), "failed", "ValueError: surprise"),
    ],
)
def test_status_says_what_ended_the_work(run: Run, error: BaseException, state: str, message: str) -> None:
    with pytest.raises(type(error)), run.recorded():
        raise error
    assert run.status is not None
    assert (run.status.state, run.status.message) == (state, message)
    with run.recorded():  # and the next attempt starts clean
        assert run.status.message == ""


def test_interruption_has_the_exit_code_of_a_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of rank 0, where all have agreed: whatever started them ends the rest at the first code that is not 0."""
    assert Interrupted(signal.SIGINT, "").exit_code == 130
    assert Interrupted(signal.SIGTERM, "", agreed=True).exit_code == 143
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    assert Interrupted(signal.SIGTERM, "", agreed=True).exit_code == 0
    assert Interrupted(signal.SIGTERM, "").exit_code == 143


def test_further_nodes_are_not_rank_0_before_there_is_a_trainer(
    experiment_file: ExperimentFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rank_zero_only, "rank", 0)
    monkeypatch.setenv("NODE_RANK", "1")
    further = Run.of(compose(experiment_file()))
    assert rank() == 1
    with further.recorded():
        assert not further.folder.exists()


def test_one_process_at_a_time_and_the_lock_dies_with_it(run: Run) -> None:
    child = os.fork()
    if child == 0:
        with run.recorded():
            time.sleep(60)
        os._exit(0)
    try:
        while run.status is None:
            time.sleep(0.01)
        with pytest.raises(UserError, match=f"process {child}"), run.recorded():
            pass
        assert run.status.state == "running"  # the refused attempt changed nothing
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert run.status.state == "running"  # a killed process can't say so
    with run.recorded():
        pass
    assert run.finished


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def fail() -> None:
        with replacing(path) as file:
            file.write(b"half of the n")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_status_is_plain_json(tmp_path: Path) -> None:
    status = Status("failed", step=3, message="why")
    status.write(tmp_path / "status.json")
    assert json.loads((tmp_path / "status.json").read_text())["state"] == "failed"
    assert Status.read(tmp_path / "status.json") == status
