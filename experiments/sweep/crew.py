"""Trials as processes of this machine, some at a time, under claims: what every engine runs in the end."""

import os
import signal
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from experiments.processes import end_with_parent
from experiments.sweep.claim import BEAT_S, Claim
from experiments.sweep.ledger import Ledger, TrialState
from experiments.sweep.share import share
from experiments.sweep.trial import Trial

POLL_S = 0.3
PATIENCE_S = 1.0  # a launcher that passes signals on makes two of one
ENDS = ("SIGINT", "SIGTERM")  # whoever handles them so far
WARNS = ("SIGUSR1", "SIGUSR2")  # of a cluster, before it ends a job; where nobody handles them so far

Commands = Callable[[Trial], Sequence[Sequence[str]]]


def train_and_evaluate(trial: Trial) -> Sequence[Sequence[str]]:
    """A trial's own commands."""
    return trial.commands


@dataclass
class Job:
    """A trial at work: its process, and the commands that are to follow.

    unwanted  whether it is to end before its time.
    """

    trial: Trial
    claim: Claim
    slot: int
    process: "subprocess.Popen[bytes]"
    rest: list[Sequence[str]]
    unwanted: bool = False
    began: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        """Since the first command."""
        return time.monotonic() - self.began

    def end(self, number: int) -> None:
        """Asks the trial to save its step and to end."""
        self.process.send_signal(number)


class Crew(ABC):
    """A process with some trials at work at a time. Which ones is a subclass's to say."""

    def __init__(self, ledger: Ledger, jobs: int, commands: Commands = train_and_evaluate) -> None:
        self.ledger, self.jobs, self.commands = ledger, jobs, commands
        self.running: dict[int, Job] = {}  # by slot
        self.failed: list[Trial] = []
        self.farewell: int = signal.SIGTERM  # what asks a trial to save its step
        self._beaten = time.monotonic()

    @abstractmethod
    def more(self) -> bool:
        """Whether trials are left that are not at work here."""

    @abstractmethod
    def fill(self, free: Sequence[int]) -> None:
        """Begins trials in free slots, as far as there are any that nobody else has."""

    @abstractmethod
    def tell(self, trial: Trial, what: str) -> None:
        """Says what became of a trial."""

    def unwanted(self, job: Job) -> bool:
        """Whether a trial at work is to end before its time."""
        return False

    def ended(self, trial: Trial, state: TrialState) -> None:
        """Whatever is to be done about a trial that was brought to this end, which the ledger knows: nothing."""
        return

    def run(self) -> int:
        """Returns 0 where all are finished, 1 where a trial failed, 128 + signal after a signal."""
        with signals() as received:
            try:
                while not received and (self.more() or self.running):
                    self._look()
                    free = [slot for slot in range(self.jobs) if slot not in self.running]
                    if free:
                        self.fill(free)
                    time.sleep(POLL_S)
                if received:
                    self.stop(received)
                    return 128 + received[0][0]
            finally:
                for job in self.running.values():  # none, unless this process itself fails, as on a full disk
                    job.end(self.farewell)
        return 1 if self.failed else 0

    def begin(self, trial: Trial, claim: Claim, slot: int) -> None:
        """Starts a trial whose claim was taken."""
        first, *rest = self.commands(trial)
        self.ledger.record(trial, "running")
        job = Job(trial, claim, slot, self._spawn(trial, first, slot), rest)
        claim.sign(job.process.pid)
        self.running[slot] = job
        self.tell(trial, f"started, log in {self.ledger.log(trial)}")

    def stop(self, received: Sequence[tuple[int, float]]) -> None:
        """Lets each trial save its step, and waits for it; at a second signal ends them at once."""
        number, at = received[0]
        if self.running:
            say(f"{signal.Signals(number).name}: {len(self.running)} trials save their step; Ctrl-C again kills them")
        for job in self.running.values():
            job.end(self.farewell)
        while self.running:
            for job in list(self.running.values()):
                if received[-1][1] - at > PATIENCE_S and job.process.poll() is None:
                    os.killpg(job.process.pid, signal.SIGKILL)
                code = job.process.poll()
                if code is not None:
                    self._end(job, code, stopped=True)
            time.sleep(POLL_S)
        say("stopped; the same command goes on with the sweep")

    def _look(self) -> None:
        """Records what has ended, and shows that this process lives."""
        for job in list(self.running.values()):
            code = job.process.poll()
            if code == 0 and job.rest and not job.unwanted:
                job.process = self._spawn(job.trial, job.rest.pop(0), job.slot)
                job.claim.sign(job.process.pid)
            elif code is not None:
                self._end(job, code)
            elif not job.unwanted and self.unwanted(job):
                job.unwanted = True
                job.end(self.farewell)
        if time.monotonic() - self._beaten > BEAT_S:
            self._beaten = time.monotonic()
            for job in self.running.values():
                job.claim.beat()

    def _end(self, job: Job, code: int, stopped: bool = False) -> None:
        trial, minutes = job.trial, job.seconds / 60
        state: TrialState = "failed"
        reason = ""
        if code == 0 and not job.rest:
            state, told = "finished", f"finished in {minutes:.1f} min"
        elif job.unwanted:
            state, told = "pruned", f"pruned after {minutes:.1f} min"
        elif stopped:
            state, told = "interrupted", f"interrupted after {minutes:.1f} min"
        else:
            reason = _last_line(self.ledger.log(trial)) or f"exit code {code}"
            told = f"FAILED after {minutes:.1f} min: {reason} (read {self.ledger.log(trial)})"
            self.failed.append(trial)
        self.ledger.record(trial, state, job.seconds, reason)
        del self.running[job.slot]
        self.ended(trial, state)
        self.tell(trial, told)
        job.claim.release()

    def _spawn(self, trial: Trial, command: Sequence[str], slot: int) -> "subprocess.Popen[bytes]":
        log = self.ledger.log(trial)
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as file:
            file.write(f"$ {' '.join(command)}\n".encode())
            file.flush()
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=os.environ | share(slot, self.jobs) | _own(self.ledger.folder.name),
                start_new_session=True,  # a terminal's Ctrl-C is this process's to pass on
                preexec_fn=_end_with_parent if sys.platform == "linux" else None,
            )


def say(line: str) -> None:
    """To the person at the terminal."""
    print(line, file=sys.stderr, flush=True)


def _own(sweep: str) -> dict[str, str]:
    """A port at which a trial's ranks, and no other's, meet; that a sweep starts it again, not itself; whose it is."""
    with socket.socket() as free:
        free.bind(("", 0))
        port = free.getsockname()[1]
    return {"MASTER_PORT": str(port), "IMMUNOCLIP_REQUEUE": "launcher", "IMMUNOCLIP_SWEEP": sweep}


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").split("\n")
    said = [line.rpartition("\r")[2].strip() for line in lines if not line.startswith("$ ")]
    return next((line for line in reversed(said) if line), "")


def _end_with_parent() -> None:
    """In a child: where the agent is killed, the trial saves its step and ends, as after a SIGTERM."""
    end_with_parent(signal.SIGTERM)


@contextmanager
def signals() -> Iterator[list[tuple[int, float]]]:
    """Ctrl-C, SIGTERM and a cluster's warnings within the block, each with its time, instead of their effects."""
    received: list[tuple[int, float]] = []
    unhandled = [name for name in WARNS if signal.getsignal(signal.Signals[name]) is signal.SIG_DFL]
    before = {
        number: signal.signal(number, lambda number, _: received.append((number, time.monotonic())))
        for number in (signal.Signals[name] for name in (*ENDS, *unhandled))
    }
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
