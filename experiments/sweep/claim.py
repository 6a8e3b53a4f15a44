"""The right to run a trial: a file that one process alone can create."""

import fcntl
import json
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.atomic import write_text
from experiments.processes import alive
from experiments.status import now

BEAT_S = 30.0  # between signs of life
STALE_S = 600.0  # without one, after which the holder on another machine counts as dead


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """One process at a time is in this block, of those that name the same folder. The lock dies with its process."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        fcntl.lockf(file, fcntl.LOCK_EX)
        yield


@dataclass(frozen=True)
class Claim:
    """A trial's claim, `path`; beside it is the lock under which stale claims change hands.

    A claim is stale where none of its processes on this machine is alive, or where one of another machine has shown no
    sign of life for ten minutes. A later process of the same number, as after a restart, is another process.
    """

    path: Path

    def take(self) -> bool:
        """Whether the trial is now this process's. A stale claim is taken over, by one of those who try."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with self.path.open("x") as file:
                file.write(_signature())
            return True
        except FileExistsError:
            pass
        with exclusive(self.path.parent):
            if not self._stale():
                return False
            write_text(self.path, _signature())
            return True

    def sign(self, child: int) -> None:
        """Says that the process `child` works on the trial too: it may outlive this one."""
        write_text(self.path, _signature(child))

    def beat(self) -> None:
        """A sign of life, to be given every BEAT_S seconds."""
        with suppress(FileNotFoundError):  # of a process that slept, and whose trial another took over and ended
            os.utime(self.path)

    def release(self) -> None:
        """Gives the trial up."""
        self.path.unlink(missing_ok=True)

    @property
    def holder(self) -> str:
        """Who has it, in words."""
        content = self._read()
        return f"process {content['processes'][0][0]} on {content['host']}" if content else "another process"

    def _stale(self) -> bool:
        content = self._read()
        if content and content["host"] == platform.node():
            return not any(_same(pid, begun) for pid, begun in content["processes"])
        try:
            return time.time() - self.path.stat().st_mtime > STALE_S
        except FileNotFoundError:  # given up meanwhile
            return False

    def _read(self) -> dict[str, Any] | None:
        """None between the file's creation and its signature, or where it is gone."""
        try:
            content: dict[str, Any] = json.loads(self.path.read_text())
            return content
        except (FileNotFoundError, ValueError):
            return None


def _signature(*children: int) -> str:
    processes = [(pid, _begun(pid)) for pid in (os.getpid(), *children)]
    return json.dumps({"host": platform.node(), "processes": processes, "since": now()}) + "\n"


def _same(pid: int, begun: int | None) -> bool:
    """Whether the process of this number is alive, and is the one that began then, as far as that can be known."""
    found = _begun(pid)
    return None not in (found, begun) and (found == begun or 0 in (found, begun))


def _begun(pid: int) -> int | None:
    """When a process began, in Linux's ticks; 0 where that is not known, None where it has ended."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if state == "Z" else int(fields[18])
    except (FileNotFoundError, ProcessLookupError):  # or not Linux, or another user's
        return 0 if alive(pid) else None
