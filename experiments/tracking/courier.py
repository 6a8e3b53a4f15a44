"""The process that talks to W&B, as the run sees it: something to hand messages to, which never makes the run wait."""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

WAITING = 10_000  # messages; a run that is that far ahead of its mirror leaves the next ones out
_ROOT = Path(__file__).resolve().parents[2]


class Courier:
    """Starts the client, and passes messages on, JSON objects, one a line, both ways. Nothing here raises or waits but
    `close`, which waits for so long as it is told."""

    def __init__(self, log: Path, heard: Callable[[Mapping[str, Any]], None]) -> None:
        """
        Args:
            log: file for what the client and wandb print.
            heard: is called with each message of the client, in a thread of its own.
        """
        self.lost = 0
        self._queue: queue.Queue[Mapping[str, Any] | None] = queue.Queue(WAITING)
        self._heard = heard
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "experiments.tracking.client"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                env=_environment(),
                start_new_session=True,  # signals are for the run, which says when it ends
            )
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._write, self._read)]
        for thread in self._threads:
            thread.start()

    def send(self, message: Mapping[str, Any]) -> None:
        """Hands a message over, or counts it as lost where the client is far behind."""
        try:
            self._queue.put_nowait(message)
        except queue.Full:
            self.lost += 1

    def close(self, seconds: float) -> bool:
        """Lets the client come to its end, and kills it after so many seconds; returns whether it ended by itself."""
        with suppress(queue.Full):
            self._queue.put_nowait(None)
        try:
            self._process.wait(seconds)
            self._threads[1].join(1.0)  # which has its last words
        except subprocess.TimeoutExpired:
            return False
        finally:
            with suppress(ProcessLookupError):  # wandb's own service is in another group, and ends with the client
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        return self._process.returncode == 0

    def _write(self) -> None:
        pipe = self._process.stdin
        assert pipe is not None
        with suppress(OSError), pipe:  # the client is gone
            while (message := self._queue.get()) is not None:
                pipe.write(json.dumps(message, default=str).encode() + b"\n")
                pipe.flush()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._heard(json.loads(line))


def _environment() -> dict[str, str]:
    """This process's, with our packages in reach, and without the service of another W&B run."""
    inherited = {name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"}
    path = os.pathsep.join([str(_ROOT), *filter(None, [inherited.get("PYTHONPATH")])])
    return {**inherited, "PYTHONPATH": path}
