"""Trainings that are killed again and again, at random moments, end with the weights and log of one that was not."""

import multiprocessing
import os
import random
import signal
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
from conftest import ExperimentFile

from configs.compose import compose
from experiments.runs import Run
from tests.distributed.preempted import GO_ON, attempt
from tests.integration.runs import logged, same, saved_step, weights
from tests.scheduler import Scheduler

KILLS = 10  # of each number of ranks
MOMENTS = {"batch": 5, "backward": 5, "step": 5, "saving": 2, "validating": 2, "running": 4}  # the latest of each
TRAINER = {"steps": 36, "accelerator": "cpu", "checkpoint_every": 2, "validate_every": 3, "accumulate": 2, "threads": 1}

# Its processes are copies of one that has imported everything: two seconds each instead of ten.
context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload(["tests.distributed.preempted"])


@dataclass(frozen=True)
class Kill:
    """A signal to some ranks when one of them has come to a moment."""

    number: signal.Signals
    victims: tuple[int, ...]
    witness: int
    kind: str
    count: int
    delay: float  # seconds, where nobody waits


def plan(seed: int, ranks: int) -> list[Kill]:
    """Random, and the same for the same seed."""
    drawn = random.Random(seed)
    kinds = drawn.sample([*MOMENTS, *MOMENTS], KILLS)
    chosen: list[tuple[int, ...]] = [(0,)] if ranks == 1 else [(0,), (1,), (0, 1)]
    return [
        Kill(
            drawn.choice([signal.SIGKILL, signal.SIGTERM]),
            drawn.choice(chosen),
            0 if kind == "saving" else drawn.randrange(ranks),
            kind,
            drawn.randint(1, MOMENTS[kind]),
            drawn.uniform(0, 0.2),
        )
        for kind in kinds
    ]


def start(
    experiment: Path, ranks: int, kill: Kill | None, **environment: str
) -> tuple[list[BaseProcess], list[Connection]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        environment["MASTER_PORT"] = str(free.getsockname()[1])
    processes: list[BaseProcess] = []
    ours: list[Connection] = []
    for rank in range(ranks):
        here, there = context.Pipe()
        moment: tuple[str, int] = (kill.kind, kill.count) if kill is not None and kill.witness == rank else ("", 0)
        process = context.Process(target=attempt, args=(experiment, rank, ranks, environment, there, *moment))
        process.start()
        there.close()
        processes.append(process)
        ours.append(here)
    return processes, ours


def run_to_the_end(experiment: Path, ranks: int) -> None:
    processes, _ = start(experiment, ranks, None)
    assert codes(processes) == [0] * ranks


def strike(experiment: Path, ranks: int, kill: Kill, **environment: str) -> list[int | None]:
    """The exit codes of the ranks."""
    processes, told = start(experiment, ranks, kill, **environment)
    assert told[kill.witness].recv_bytes(), "it ended before the moment came"
    if kill.kind == "running":
        time.sleep(kill.delay)
    for victim in kill.victims:
        os.kill(processes[victim].pid or 0, kill.number)
    if kill.number == signal.SIGKILL:  # a launcher ends the others
        processes[kill.victims[0]].join()
        for process in processes:
            process.kill()
    elif kill.kind != "running":
        told[kill.witness].send_bytes(GO_ON)
    return codes(processes)


def codes(processes: Sequence[BaseProcess]) -> list[int | None]:
    for process in processes:
        process.join(60)
        process.kill()
        process.join()
    return [process.exitcode for process in processes]


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2])
def test_ten_kills_leave_no_trace(experiment_file: ExperimentFile, tmp_path: Path, ranks: int) -> None:
    """And SLURM is asked once for another attempt, by one rank, where a run could still ask."""
    scheduler = Scheduler(tmp_path / "slurm")
    slurm = {"SLURM_JOB_ID": "71", "SLURM_JOB_NAME": "train", **scheduler.environment}
    settings: dict[str, Any] = {
        "attack": {"kind": "pgd", "steps": 1},
        "trainer": TRAINER | {"log_every": ranks, "devices": ranks, "strategy": "ddp" if ranks > 1 else "auto"},
        "evaluation": {"validation_samples": 12},
    }
    whole = experiment_file("whole", **settings)
    run_to_the_end(whole, ranks)
    killed = experiment_file("killed", **settings)
    run = Run.of(compose(killed))
    kills = plan(ranks, ranks)
    for kill in kills:
        ended = strike(killed, ranks, kill, **slurm)
        status = run.status
        assert status is not None
        if kill.number == signal.SIGTERM:
            assert ended == [128 + signal.SIGTERM, 0][:ranks], kill  # rank 0 speaks for all
            assert (status.state, status.step) == ("interrupted", saved_step(run)), kill
        elif 0 in kill.victims:
            assert ended[0] == -signal.SIGKILL, kill
            assert status.killed, kill
    run_to_the_end(killed, ranks)
    asked = sum(kill.number == signal.SIGTERM for kill in kills)
    assert scheduler.requeued == ["71"] * asked
    assert scheduler.found == ["interrupted", "finished"] * asked  # of the killed run and of the whole one
    assert logged(run) == logged(Run.of(compose(whole)))
    assert same(weights(run.model), weights(Run.of(compose(whole)).model))
