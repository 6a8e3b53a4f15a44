"""status.json: what became of a run. Launchers read it instead of exit codes: a preempted process may exit with 0."""

import json
import os
import platform
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from experiments.atomic import write_text
from experiments.processes import alive

State = Literal["running", "finished", "interrupted", "failed"]


def now() -> str:
    """UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass(frozen=True)
class Status:
    """State of a run.

    `step` of `steps` optimiser steps are in the last report. A `running` status whose process `pid` on `host` is gone
    belongs to a run that was killed: starting it again resumes it. `measuring` says what interrupted the last
    measurement; empty where nothing did.
    """

    state: State
    step: int = 0
    steps: int | None = None
    message: str = ""
    measuring: str = ""
    pid: int = field(default_factory=os.getpid)
    host: str = field(default_factory=platform.node)
    started: str = field(default_factory=now)
    updated: str = field(default_factory=now)

    @property
    def killed(self) -> bool:
        """Whether the process that reported itself running is gone. Another host's counts as alive."""
        return self.state == "running" and self.host == platform.node() and not alive(self.pid)

    @property
    def unfinished(self) -> str:
        """In words, where training ended before its end: "was killed at step 7 of 20"; empty otherwise."""
        state = "killed" if self.killed else self.state
        if state in ("running", "finished"):
            return ""
        what = {"killed": "was killed", "interrupted": "was interrupted", "failed": "failed"}[state]
        of = f" of {self.steps}" if self.steps else ""
        return f"{what} at step {self.step}{of}" + (f": {self.message}" if self.message else "")

    def write(self, path: Path) -> None:
        """Replaces the file atomically."""
        write_text(path, json.dumps(asdict(self), indent=2) + "\n")

    @staticmethod
    def read(path: Path) -> "Status | None":
        """The status that was last written, or None where there is none."""
        return Status(**json.loads(path.read_text())) if path.exists() else None
