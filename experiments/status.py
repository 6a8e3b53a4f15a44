"""status.json: what became of a run. Launchers read it instead of exit codes: a preempted process may exit with 0."""

import json
import os
import platform
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from experiments.atomic import write_text

State = Literal["running", "finished", "interrupted", "failed"]


def now() -> str:
    """UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass(frozen=True)
class Status:
    """State of a run.

    `step` of `steps` optimiser steps are in the last report. A `running` status whose process `pid` on `host` is gone
    belongs to a run that was killed: starting it again resumes it.
    """

    state: State
    step: int = 0
    steps: int | None = None
    message: str = ""
    pid: int = field(default_factory=os.getpid)
    host: str = field(default_factory=platform.node)
    started: str = field(default_factory=now)
    updated: str = field(default_factory=now)

    def write(self, path: Path) -> None:
        """Replaces the file atomically."""
        write_text(path, json.dumps(asdict(self), indent=2) + "\n")

    @staticmethod
    def read(path: Path) -> "Status | None":
        """The status that was last written, or None where there is none."""
        return Status(**json.loads(path.read_text())) if path.exists() else None
