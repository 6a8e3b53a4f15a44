"""Asks SLURM for another attempt after an interruption. A run has exactly one owner who does."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping

from lightning.pytorch.utilities import rank_zero_only

from experiments.stop import TIME_IS_OVER

OWNER = "IMMUNOCLIP_REQUEUE"  # "launcher": an engine that started the run starts it again
_PERSON = ("bash", "interactive")  # names of jobs at whose prompt someone sits
_TIMEOUT_S = 60


def job(environment: Mapping[str, str]) -> str | None:
    """The SLURM job that this run is to requeue, `ARRAY_TASK` in an array; None where another does, or no one."""
    interactive = environment.get("SLURM_JOB_NAME") in _PERSON
    if "SLURM_JOB_ID" not in environment or interactive or environment.get(OWNER) == "launcher":
        return None
    if "SLURM_ARRAY_JOB_ID" in environment:
        return f"{environment['SLURM_ARRAY_JOB_ID']}_{environment['SLURM_ARRAY_TASK_ID']}"
    return environment["SLURM_JOB_ID"]


@rank_zero_only
def requeue(signal_number: int) -> None:
    """Requeues this job, on rank 0 alone: after a warning (SIGUSR1), a preemption (SIGTERM) or the wall time.

    Not after Ctrl-C, nor after submitit's SIGUSR2, nor after `scancel`, which also sends SIGTERM: the job is then no
    longer running, and a requeued one could not be cancelled. Where SLURM refuses, one line on stderr says so.
    """
    mine = job(os.environ)
    if mine is None or signal_number not in (signal.SIGUSR1, signal.SIGTERM, TIME_IS_OVER):
        return
    try:
        if signal_number == signal.SIGTERM and "JobState=RUNNING" not in _scontrol("show", "job", mine):
            return
        _scontrol("requeue", mine)
    except (OSError, subprocess.SubprocessError) as error:
        print(f"SLURM job {mine} could not be requeued: {_reason(error)}; submit it again", file=sys.stderr)


def _scontrol(*arguments: str) -> str:
    command = ["scontrol", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=_TIMEOUT_S).stdout


def _reason(error: Exception) -> str:
    said = (getattr(error, "stderr", None) or "").strip()
    return said.splitlines()[-1] if said else str(error)
