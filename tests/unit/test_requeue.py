"""Signals and the wall time outside a fit, and who asks SLURM for another attempt."""

import json
import os
import signal
import time
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path

import pytest
from lightning.pytorch.utilities import rank_zero_only

from experiments.requeue import job, requeue
from experiments.runs import Run
from experiments.status import Status
from experiments.stop import TIME_IS_OVER, Interrupted, Stop
from experiments.wall_time import GRACE_S, WallTime
from tests.scheduler import Scheduler

JOB = {"SLURM_JOB_ID": "71", "SLURM_JOB_NAME": "train"}
ARRAY = JOB | {"SLURM_ARRAY_JOB_ID": "70", "SLURM_ARRAY_TASK_ID": "3"}


@pytest.fixture
def scheduler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scheduler:
    """SLURM, as far as a run knows it: this process is in job 71."""
    scheduler = Scheduler(tmp_path / "slurm")
    for name, value in (JOB | scheduler.environment).items():
        monkeypatch.setenv(name, value)
    return scheduler


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path / "outputs" / "tiny" / "0123abcd-s0", "tiny", "0123abcd", 0)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        (JOB, "71"),
        (ARRAY, "70_3"),
        (JOB | {"SLURM_JOB_NAME": "bash"}, None),
        (JOB | {"SLURM_JOB_NAME": "interactive"}, None),
        (ARRAY | {"IMMUNOCLIP_REQUEUE": "launcher"}, None),
    ],
)
def test_whose_job_it_is(environment: dict[str, str], expected: str | None) -> None:
    assert job(environment) == expected


@pytest.mark.parametrize(
    ("number", "calls"),
    [(signal.SIGUSR1, 1), (signal.SIGTERM, 1), (TIME_IS_OVER, 1), (signal.SIGINT, 0), (signal.SIGUSR2, 0)],
)
def test_requeues_once_after_what_slurm_sends(scheduler: Scheduler, run: Run, number: int, calls: int) -> None:
    """And after the status is written: SLURM ends the job as soon as it is asked."""
    with pytest.raises(Interrupted), run.recorded():
        os.kill(os.getpid(), number)
    assert scheduler.requeued == ["71"] * calls
    assert run.status is not None
    assert run.status.state == "interrupted"
    assert scheduler.found == ["interrupted"] * calls


def test_a_cancelled_job_stays_cancelled(scheduler: Scheduler) -> None:
    scheduler.state = "COMPLETING"
    requeue(signal.SIGTERM)
    assert scheduler.requeued == []


def test_rank_0_alone_asks(scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    requeue(signal.SIGUSR1)
    assert scheduler.requeued == []


def test_a_failed_run_is_not_started_again(scheduler: Scheduler, run: Run) -> None:
    with pytest.raises(ValueError, match="surprise"), run.recorded():
        raise ValueError("surprise")
    assert scheduler.requeued == []


def test_a_refusal_is_one_line(
    scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scheduler.refuse()
    requeue(signal.SIGUSR1)
    monkeypatch.setenv("PATH", "")
    requeue(signal.SIGUSR1)
    refused, missing = capsys.readouterr().err.splitlines()
    assert "SLURM job 71 could not be requeued: Requested operation is presently disabled" in refused
    assert "'scontrol'" in missing


def test_the_earlier_end_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    assert WallTime.of(None).left == float("inf")
    monkeypatch.setenv("SLURM_JOB_END_TIME", str(int(time.time()) + 600))
    assert WallTime.of(None).left == pytest.approx(600 - GRACE_S, abs=2)
    assert WallTime.of(20).left == WallTime.of(None).left or WallTime.of(20).cause == WallTime.of(None).cause
    assert WallTime.of(5).left == pytest.approx(300, abs=1)
    assert "wall_minutes=5" in WallTime.of(5).cause


@pytest.mark.parametrize("seconds", [0.2, -60.0])
def test_the_wall_time_ends_any_work(run: Run, seconds: float) -> None:
    limited = Run(run.folder, "tiny", "0123abcd", 0, Stop(WallTime(time.monotonic() + seconds, "the test")))
    began = time.monotonic()
    with pytest.raises(Interrupted, match="the time that the test leaves is over") as ended, limited.recorded():
        time.sleep(30)
    assert time.monotonic() - began < 5
    assert ended.value.exit_code == 142
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_a_doubled_signal_does_not_disturb_the_end(run: Run) -> None:
    """torchrun and `wandb agent` pass on what the process has got already."""

    def work() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
            run.report(step=5)

    with pytest.raises(Interrupted, match="SIGTERM"), run.recorded():
        work()
    assert run.status is not None
    assert (run.status.state, run.status.step) == ("interrupted", 5)


def test_a_second_signal_waits_for_the_end_and_a_second_ctrl_c_does_not(
    scheduler: Scheduler, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SLURM and torchrun send SIGTERM to what a warning has not ended yet, which may be about to ask for a requeue."""
    monkeypatch.setattr("experiments.stop.PATIENCE_S", 0.0)  # as if each came much later than the one before
    ended = []

    def work(second: int) -> None:
        try:
            os.kill(os.getpid(), signal.SIGUSR1)
        finally:
            os.kill(os.getpid(), second)
            ended.append(second)

    for second in (signal.SIGTERM, signal.SIGINT):
        with pytest.raises(Interrupted, match="SIGUSR1"), Run(run.folder, "tiny", "0123abcd", 0).recorded():
            work(second)
    assert ended == [signal.SIGTERM]
    assert scheduler.requeued == ["71", "71"]


def test_no_handler_of_errors_takes_it_for_one(run: Run) -> None:
    with pytest.raises(Interrupted), run.recorded(), suppress(Exception):
        os.kill(os.getpid(), signal.SIGUSR2)


def test_within_a_fit_a_signal_waits_to_be_looked_at() -> None:
    stop, looked = Stop(), []

    def work() -> None:
        os.kill(os.getpid(), signal.SIGUSR1)
        looked.append(stop.signal_number)

    with pytest.raises(Interrupted, match="SIGUSR1"), stop.listening(), stop.postponed():
        work()
    assert looked == [signal.SIGUSR1]


def test_a_killed_run_is_told_from_a_running_one(run: Run) -> None:
    child = os.fork()
    if child == 0:
        run.start()
        run.report(step=3, steps=9)
        os._exit(0)
    os.waitpid(child, 0)
    assert run.status is not None
    assert run.status.killed
    assert run.status.unfinished == "was killed at step 3 of 9"
    fields = json.loads(run.status_file.read_text())
    assert not Status(**fields | {"host": "elsewhere"}).killed
    with run.recorded():
        assert run.status is not None
        assert run.status.unfinished == ""


@pytest.mark.parametrize(("number", "ends"), [(signal.SIGTERM, True), (signal.SIGUSR1, False), (signal.SIGINT, False)])
def test_a_forked_worker_ends_when_its_parent_says_so_and_outlives_a_warning(number: int, ends: bool) -> None:
    with Stop().listening():
        worker = get_context("fork").Process(target=time.sleep, args=(60,))
        worker.start()
        time.sleep(0.2)
        assert worker.pid is not None
        os.kill(worker.pid, number)
        worker.join(10 if ends else 0.5)
        try:
            assert worker.exitcode == (-number if ends else None)
        finally:
            worker.kill()
            worker.join()
