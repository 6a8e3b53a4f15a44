"""The engine `local`: trials as processes of this machine, some at a time. Other agents may work on the same sweep."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from experiments.sweep.claim import BEAT_S, Claim
from experiments.sweep.ledger import Ledger
from experiments.sweep.share import share
from experiments.sweep.trial import Trial, titles

POLL_S = 0.3
PATIENCE_S = 1.0  # a launcher that passes signals on makes two of one
DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of Linux's prctl

Commands = Callable[[Trial], Sequence[Sequence[str]]]


def run(ledger: Ledger, trials: Sequence[Trial], jobs: int) -> int:
    """Runs what is not finished, `jobs` trials at a time, and waits for those that other agents run.

    Returns 0 where all are finished, 1 where a trial failed, 128 + signal after Ctrl-C or SIGTERM.
    """
    return Agent(ledger, trials, jobs).run()


@dataclass
class Job:
    """A trial at work: its process, and the commands that are to follow."""

    trial: Trial
    claim: Claim
    slot: int
    process: "subprocess.Popen[bytes]"
    rest: list[Sequence[str]]
    began: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        """Since the first command."""
        return time.monotonic() - self.began


class Agent:
    """One process that works on a sweep. It tries each trial once, and ends when all trials have ended."""

    def __init__(
        self, ledger: Ledger, trials: Sequence[Trial], jobs: int, commands: Commands = lambda trial: trial.commands
    ) -> None:
        self.ledger, self.jobs, self.commands = ledger, jobs, commands
        self.total, self.titles = len(trials), titles(trials)
        self.earlier = len(ledger.events())  # what failed before is tried again; what fails from now on is not
        last = ledger.last()
        self.waiting = [trial for trial in trials if not ledger.finished(trial, last)]
        self.running: dict[int, Job] = {}  # by slot
        self.failed: list[Trial] = []
        self._told: set[str] = set()
        self._beaten = time.monotonic()

    def run(self) -> int:
        """As the module's `run`."""
        if len(self.waiting) < self.total:
            _say(f"{self.total - len(self.waiting)} of {self.total} trials are finished already")
        with _signals() as received:
            try:
                while (self.waiting or self.running) and not received:
                    self._look()
                    self._start()
                    time.sleep(POLL_S)
                if received:
                    return self._stop(received)
            finally:
                for job in self.running.values():  # none, unless this process itself fails, as on a full disk
                    job.process.terminate()
        return 1 if self.failed else 0

    def _look(self) -> None:
        """Records what has ended, and shows that this process lives."""
        for job in list(self.running.values()):
            code = job.process.poll()
            if code == 0 and job.rest:
                self._next(job)
            elif code is not None:
                self._end(job, code)
        if time.monotonic() - self._beaten > BEAT_S:
            self._beaten = time.monotonic()
            for job in self.running.values():
                job.claim.beat()

    def _start(self) -> None:
        """Fills the free slots."""
        free = [slot for slot in range(self.jobs) if slot not in self.running]
        if not free or not self.waiting:
            return
        self._settle()
        for trial in list(self.waiting):
            if not free:
                return
            claim = self.ledger.claim(trial)
            if not claim.take():
                self._tell(trial, claim)
                continue
            self._settle()
            if trial not in self.waiting:  # ended between the look into the ledger and the claim
                claim.release()
                continue
            self.waiting.remove(trial)
            self._begin(trial, claim, free.pop(0))

    def _settle(self) -> None:
        """Takes off the list what other agents have brought to an end since this one began."""
        last, recent = self.ledger.last(), self.ledger.events()[self.earlier :]
        failed = {event.trial for event in recent if event.state == "failed" and event == last[event.trial]}
        for trial in list(self.waiting):
            if self.ledger.finished(trial, last) or trial.identity in failed:
                self.waiting.remove(trial)
                if trial.identity in failed:
                    self.failed.append(trial)
                self._report(trial, f"{last[trial.identity].state} by another agent")

    def _begin(self, trial: Trial, claim: Claim, slot: int) -> None:
        first, *rest = self.commands(trial)
        self.ledger.record(trial, "running")
        job = Job(trial, claim, slot, self._spawn(trial, first, slot), rest)
        claim.sign(job.process.pid)
        self.running[slot] = job
        self._report(trial, f"started, log in {self.ledger.log(trial)}")

    def _next(self, job: Job) -> None:
        job.process = self._spawn(job.trial, job.rest.pop(0), job.slot)
        job.claim.sign(job.process.pid)

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
                env=os.environ | share(slot, self.jobs),
                start_new_session=True,  # a terminal's Ctrl-C is this process's to pass on
                preexec_fn=_end_with_parent if sys.platform == "linux" else None,
            )

    def _end(self, job: Job, code: int, stopped: bool = False) -> None:
        trial, minutes = job.trial, job.seconds / 60
        if code == 0 and not job.rest:
            self.ledger.record(trial, "finished", job.seconds)
            self._report(trial, f"finished in {minutes:.1f} min")
        elif stopped:
            self.ledger.record(trial, "interrupted", job.seconds)
        else:
            reason = _last_line(self.ledger.log(trial)) or f"exit code {code}"
            self.ledger.record(trial, "failed", job.seconds, reason)
            self.failed.append(trial)
            self._report(trial, f"FAILED after {minutes:.1f} min: {reason} (read {self.ledger.log(trial)})")
        job.claim.release()
        del self.running[job.slot]

    def _stop(self, received: list[tuple[int, float]]) -> int:
        """Lets each trial save its step; at a second signal ends them at once."""
        number, at = received[0]
        if self.running:
            _say(f"{signal.Signals(number).name}: {len(self.running)} trials save their step; Ctrl-C again kills them")
        for job in self.running.values():
            job.process.terminate()
        while self.running:
            for job in list(self.running.values()):
                if received[-1][1] - at > PATIENCE_S and job.process.poll() is None:
                    os.killpg(job.process.pid, signal.SIGKILL)
                code = job.process.poll()
                if code is not None:
                    self._end(job, code, stopped=True)
            time.sleep(POLL_S)
        _say("stopped; the same command goes on with the sweep")
        return 128 + number

    def _tell(self, trial: Trial, claim: Claim) -> None:
        """Once, that another process has the trial."""
        if trial.identity not in self._told:
            self._told.add(trial.identity)
            self._report(trial, f"is run by {claim.holder} ({claim.path}); this command waits for it")

    def _report(self, trial: Trial, what: str) -> None:
        ended = self.total - len(self.waiting) - len(self.running)
        _say(f"[{ended}/{self.total}] {self.titles[trial.identity]}: {what}")


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").split("\n")
    said = [line.rpartition("\r")[2].strip() for line in lines if not line.startswith("$ ")]
    return next((line for line in reversed(said) if line), "")


def _end_with_parent() -> None:
    """In a child, on Linux: where the agent is killed, the trial saves its step and ends, as after a SIGTERM."""
    ctypes.CDLL(None).prctl(DEATH_SIGNAL, signal.SIGTERM)


@contextmanager
def _signals() -> Iterator[list[tuple[int, float]]]:
    """Ctrl-C and SIGTERM within the block, each with its time, instead of their effects."""
    received: list[tuple[int, float]] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {
        number: signal.signal(number, lambda number, _: received.append((number, time.monotonic())))
        for number in numbers
    }
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
