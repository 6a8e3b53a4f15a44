"""The engine `submitit`: an array of cluster jobs, one a trial, which outlive this process and are queued again where
they are pre-empted or out of time. Exactly one requeues: submitit, never the trial itself."""

import os
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from configs.errors import UserError
from experiments.atomic import write_text
from experiments.sweep import crew
from experiments.sweep.assignment import Assignment
from experiments.sweep.cluster import Cluster, Needs
from experiments.sweep.ledger import Ledger
from experiments.sweep.local import Agent
from experiments.sweep.trial import Trial, titles

POLL_S = 10.0  # between questions to SLURM
FOLDER = "slurm"  # in the sweep's: what submitit writes, and each trial's last job


def describe(assignment: Assignment) -> str:
    """What `run` would do."""
    cluster = Cluster.of(assignment.sweep.origin, assignment.sweep.slurm)
    lines = [
        f"{cluster.where}: {len(trials)} jobs of {needs}, {cluster.minutes} minutes each, {assignment.jobs} at a time"
        for needs, trials in _alike(assignment.trials).items()
    ]
    return "\n".join([*lines, assignment.listing(assignment.trials)])


def run(assignment: Assignment) -> int:
    """Submits what is not finished and not in the queue, and waits. Ctrl-C leaves the jobs of a cluster alone.

    Returns 0 where all trials are finished, 1 where one is not, 128 + signal after Ctrl-C or SIGTERM.

    Raises:
        UserError: submitit is not installed, or the cluster refuses the jobs.
    """
    if find_spec("submitit") is None:
        raise UserError("the engine submitit needs submitit; pip install immunoclip[slurm]")
    return Queue(assignment, Cluster.of(assignment.sweep.origin, assignment.sweep.slurm)).run()


@dataclass
class Work:
    """A trial as a job. What the batch process of the job calls, and what it calls when it is warned."""

    ledger: Ledger
    trial: Trial
    commands: crew.Commands
    launcher: tuple[str, ...]
    threads: int | None
    _agent: Agent | None = field(default=None, repr=False)

    def __call__(self) -> int:
        """Runs the trial, or waits for who runs it. Returns the exit code."""
        if self.threads is not None:
            os.environ["OMP_NUM_THREADS"] = str(self.threads)
        self._agent = Agent(self.ledger, [self.trial], 1, self.launched)
        if self.launcher:
            self._agent.farewell = signal.SIGUSR2  # srun passes it on, and takes SIGTERM for itself
        return self._agent.run()

    def launched(self, trial: Trial) -> Sequence[Sequence[str]]:
        """The trial's commands, on all nodes and devices of the job."""
        return [(*self.launcher, *command) for command in self.commands(trial)]

    def checkpoint(self) -> Any:
        """Before a time limit or a pre-emption: the trial saves its step, and is queued again."""
        from submitit.helpers import DelayedSubmission

        if self._agent is not None:
            self._agent.stop([(signal.SIGUSR2, time.monotonic())])
        return DelayedSubmission(Work(self.ledger, self.trial, self.commands, self.launcher, self.threads))


class Queue:
    """The jobs of a sweep, from their submission to their end."""

    def __init__(
        self, assignment: Assignment, cluster: Cluster, commands: crew.Commands = crew.train_and_evaluate
    ) -> None:
        self.ledger, self.cluster, self.commands = assignment.ledger, cluster, commands
        self.name, self.at_a_time = assignment.sweep.name, assignment.jobs
        self.folder = self.ledger.folder / FOLDER
        self.titles = titles(assignment.trials)
        self.slurm = cluster.where == "slurm"
        last = self.ledger.last()
        self.trials = assignment.trials
        self.waiting = [trial for trial in self.trials if not self.ledger.finished(trial, last)]
        self.jobs: dict[str, str] = {}  # identity of a trial -> the job, of those that have not ended
        self.local: dict[str, Any] = {}  # job -> submitit's, on this machine

    def run(self) -> int:
        """As the module's `run`."""
        self._find()
        with crew.signals() as received:
            while not received and (self.waiting or self.jobs):
                self._submit(len(self.waiting) if self.slurm else self.at_a_time - len(self.jobs))
                until = time.monotonic() + (POLL_S if self.slurm else crew.POLL_S)
                while not received and time.monotonic() < until:
                    time.sleep(crew.POLL_S)
                self._look()
        if received:
            self._leave()
            return 128 + received[0][0]
        return self._judge()

    def _find(self) -> None:
        """Jobs of an earlier start that are still in the queue."""
        queued = _queued() if self.slurm else set()
        for trial in list(self.waiting):
            job = self._note(trial).read_text() if self._note(trial).exists() else ""
            if job and (queued is None or job in queued):
                self.waiting.remove(trial)
                self.jobs[trial.identity] = job
        if self.jobs:
            crew.say(f"{len(self.jobs)} trials are in the queue already; this command waits for them")

    def _submit(self, at_most: int) -> None:
        batch, self.waiting = self.waiting[:at_most], self.waiting[max(0, at_most) :]
        for needs, trials in _alike(batch).items():
            for trial in trials:
                self.ledger.record(trial, "queued")
            executor = self.cluster.executor(self.folder, self.name, needs, self.at_a_time)
            work = [
                Work(self.ledger, trial, self.commands, self.cluster.launcher, self.cluster.cpus_per_task)
                for trial in trials
            ]
            try:
                jobs = executor.submit_array(work)
            except Exception as error:  # of sbatch: submitit has its own, and subprocess's
                raise UserError(
                    f"{self.cluster.where} refuses the jobs ({error}); correct the section slurm"
                ) from error
            for trial, job in zip(trials, jobs, strict=True):
                write_text(self._note(trial), job.job_id)
                self.jobs[trial.identity] = job.job_id
                if not self.slurm:
                    self.local[job.job_id] = job
            crew.say(f"submitted {len(trials)} jobs of {needs}: {jobs[0].job_id} ..., logs in {self.folder}")

    def _look(self) -> None:
        """Takes off what has ended."""
        queued = _queued() if self.slurm else {job for job, local in self.local.items() if not local.done()}
        for identity, job in list(self.jobs.items()):
            if queued is not None and job not in queued:
                del self.jobs[identity]
                event = self.ledger.last()[identity]
                crew.say(f"[{len(self.jobs) + len(self.waiting)} to go] {self.titles[identity]}: {event.state}")

    def _leave(self) -> None:
        if self.slurm:
            crew.say("the jobs go on without this command; the same command waits for them again, scancel ends them")
        working = {job: local for job, local in self.local.items() if not local.done()}
        for job in working:
            os.kill(int(job), signal.SIGTERM)  # its controller passes it on, and the trial saves its step
        for local in working.values():
            while not local.done():
                time.sleep(crew.POLL_S)

    def _judge(self) -> int:
        last = self.ledger.last()
        open_ends = [trial for trial in self.trials if not self.ledger.finished(trial, last)]
        for trial in open_ends:
            if last[trial.identity].state != "failed":
                log = self.folder / f"{self._note(trial).read_text()}_0_log.err"
                crew.say(f"{self.titles[trial.identity]}: its job ended too early; read {log}, and start this again")
        return 1 if open_ends else 0

    def _note(self, trial: Trial) -> Path:
        """Holds the trial's last job."""
        return self.folder / f"{trial.identity}.job"


def _alike(trials: Iterable[Trial]) -> Mapping[Needs, list[Trial]]:
    """An array of jobs has the same needs throughout."""
    found: dict[Needs, list[Trial]] = {}
    for trial in trials:
        found.setdefault(Needs.of(trial), []).append(trial)
    return found


def _queued() -> set[str] | None:
    """Jobs of SLURM's that have not ended; None where it does not answer."""
    asked = ("squeue", "--me", "--noheader", "--array", "--format=%i")
    try:
        answer = subprocess.run(asked, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return set(answer.stdout.split()) if answer.returncode == 0 else None
