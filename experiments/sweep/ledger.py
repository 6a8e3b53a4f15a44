"""trials.jsonl: what became of each trial of a sweep, a line an event."""

import json
import os
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from experiments.status import State, now
from experiments.sweep.claim import Claim, exclusive
from experiments.sweep.trial import Trial

TrialState = Literal[State, "queued", "pruned"]


@dataclass(frozen=True)
class Event:
    """What became of the trial with this identity.

    state    also `queued`, in the array of a cluster; `pruned`, ended by a search before its time.
    folder   the run's.
    log      where its processes wrote.
    seconds  since the attempt began.
    message  the log's last line, of a trial that failed.
    """

    trial: str
    state: TrialState
    folder: str
    log: str
    seconds: float = 0.0
    message: str = ""
    host: str = field(default_factory=platform.node)
    pid: int = field(default_factory=os.getpid)
    time: str = field(default_factory=now)


@dataclass(frozen=True)
class Ledger:
    """The folder of a sweep: trials.jsonl, logs/, claims/."""

    folder: Path

    def events(self) -> list[Event]:
        """All of them, oldest first. A line that was cut off (its process was killed) is skipped."""
        path = self.folder / "trials.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        return [event for event in map(_parse, lines) if event is not None]

    def last(self) -> Mapping[str, Event]:
        """Identity of each trial that was started -> its last event."""
        return {event.trial: event for event in self.events()}

    def finished(self, trial: Trial, last: Mapping[str, Event]) -> bool:
        """Whether its figures are there."""
        event = last.get(trial.identity)
        return event is not None and event.state == "finished" and (trial.folder / "results.jsonl").exists()

    def record(self, trial: Trial, state: TrialState, seconds: float = 0.0, message: str = "") -> None:
        """Adds an event; several processes may do so at once."""
        event = Event(trial.identity, state, str(trial.folder), str(self.log(trial)), round(seconds, 1), message)
        with exclusive(self.folder), (self.folder / "trials.jsonl").open("ab+") as file:
            if file.seek(0, os.SEEK_END) and _last_byte(file) != b"\n":
                file.write(b"\n")  # the line of a process that was killed while writing
            file.write(json.dumps(asdict(event)).encode() + b"\n")

    def log(self, trial: Trial) -> Path:
        """Where the trial's processes write."""
        return self.folder / "logs" / f"{trial.identity}.log"

    def claim(self, trial: Trial) -> Claim:
        """The right to run the trial."""
        return Claim(self.folder / "claims" / trial.identity)


def _parse(line: str) -> Event | None:
    try:
        return Event(**json.loads(line))
    except (TypeError, ValueError):
        return None


def _last_byte(file: Any) -> bytes:
    file.seek(-1, os.SEEK_END)
    last: bytes = file.read(1)
    return last
