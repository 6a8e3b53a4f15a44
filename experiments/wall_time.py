"""When an attempt's time is over."""

import math
import os
import time
from dataclasses import dataclass

SLURM_END = "SLURM_JOB_END_TIME"  # seconds since 1970; newer versions of SLURM tell it
GRACE_S = 30.0  # before SLURM's own end: to close what mirrors the run, and to ask for another attempt


@dataclass(frozen=True)
class WallTime:
    """The end of an attempt on time.monotonic's clock, and what sets it. Never, by default."""

    end: float = math.inf
    cause: str = ""

    @staticmethod
    def of(minutes: float | None) -> "WallTime":
        """Whichever comes first: `trainer.wall_minutes` from now on, or the end of the SLURM job."""
        limits = [WallTime()]
        if minutes is not None:
            limits.append(WallTime(time.monotonic() + 60 * minutes, f"trainer.wall_minutes={minutes:g}"))
        if SLURM_END in os.environ:
            left = float(os.environ[SLURM_END]) - time.time() - GRACE_S
            limits.append(WallTime(time.monotonic() + left, "the time limit of the SLURM job"))
        return min(limits, key=lambda limit: limit.end)

    @property
    def left(self) -> float:
        """Seconds; infinite where there is no end, negative after it."""
        return self.end - time.monotonic()
