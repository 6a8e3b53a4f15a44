"""A run's folder, and what becomes of the run."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import IO, Any

from lightning.pytorch.utilities import rank_zero_only

from configs.compose import Composed
from configs.errors import UserError
from experiments.atomic import write_text
from experiments.requeue import requeue
from experiments.status import Status, now
from experiments.stop import Interrupted, Stop
from experiments.wall_time import WallTime


def rank() -> int:
    """This process's among all of the run, also before there is a Trainer."""
    return int(getattr(rank_zero_only, "rank", 0))


@dataclass(frozen=True)
class Run:
    """The folder `outputs/<name>/<hash>-s<seed>/` and the files in it. The same configuration is the same run."""

    folder: Path
    name: str
    config_hash: str
    seed: int
    stop: Stop = field(default_factory=Stop, compare=False)  # of this attempt

    @staticmethod
    def of(composed: Composed) -> "Run":
        """The run of a composed configuration, whose wall time begins now; nothing is written."""
        config = composed.config
        _settle_rank(config.trainer.devices)
        stop = Stop(WallTime.of(config.trainer.wall_minutes))
        return Run(composed.run_folder, config.name, composed.hash, config.seed, stop)

    @property
    def checkpoint(self) -> Path:
        """The last good checkpoint."""
        return self.folder / "checkpoints" / "last.ckpt"

    @property
    def metrics(self) -> Path:
        """What training logged (MetricsFile)."""
        return self.folder / "metrics.csv"

    @property
    def results(self) -> Path:
        """What was measured (experiments.results)."""
        return self.folder / "results.jsonl"

    @property
    def model(self) -> Path:
        """The trained model as an open_clip folder."""
        return self.folder / "model"

    @property
    def status_file(self) -> Path:
        """State of the run (experiments.status)."""
        return self.folder / "status.json"

    @property
    def status(self) -> Status | None:
        """The last reported status; None for a run that never started."""
        return Status.read(self.status_file)

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to do."""
        return self.status is not None and self.status.state == "finished"

    @rank_zero_only
    def report(self, **changes: Any) -> None:
        """Changes fields of the status; rank 0 only."""
        replace(self.status or Status("running"), **changes, updated=now()).write(self.status_file)

    @rank_zero_only
    def start(self) -> None:
        """A new attempt of this process; rank 0 only."""
        Status("running", step=self.status.step if self.status else 0).write(self.status_file)

    @rank_zero_only
    def describe(self, composed: Composed) -> None:
        """Writes config.yaml (resolved) and what it was composed of; rank 0 only."""
        write_text(self.folder / "config.yaml", composed.resolved)
        write_text(self.folder / "config.inputs.json", json.dumps(asdict(composed.inputs), indent=2) + "\n")

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Around all work of a run: signals and the wall time end it, and SLURM is asked for another attempt where that
        is this run's to do. Of nested ones the outermost asks: as soon as SLURM is asked, it ends the job.

        Raises:
            Interrupted: at once, except within a fit (Stop).
        """
        with self.stop.listening(requeue):
            yield

    @contextmanager
    def recorded(self) -> Iterator[None]:
        """An attempt that keeps the status up to date: running, then finished, interrupted or failed.

        Raises UserError where another process is at work on the same run.
        """
        with self.attempt(), self._lock():
            self.start()
            try:
                yield
            except BaseException as error:
                with suppress(OSError):  # a full disk must not hide what went wrong
                    self.report(**_outcome(error))
                raise
            self.report(state="finished")

    @contextmanager
    def measured(self) -> Iterator[None]:
        """An attempt at measuring. `measuring` in the status tells what cut it short; the state remains training's.

        Raises UserError where another process is at work on the same run.
        """
        with self.attempt(), self._lock():
            self._tell("")
            try:
                yield
            except Interrupted as interruption:
                self._tell(str(interruption))
                raise

    def _tell(self, measuring: str) -> None:
        status = self.status
        if status is not None and status.state != "running" and status.measuring != measuring:
            self.report(measuring=measuring)

    @contextmanager
    def _lock(self) -> Iterator[None]:
        if rank():
            yield
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / ".lock").open("w") as file:
            self._acquire(file)
            yield

    def _acquire(self, file: IO[str]) -> None:
        try:
            # Not flock: the loader's forked workers would hold it on for seconds after their parent was killed.
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            holder = f"process {self.status.pid} on {self.status.host}" if self.status else "another process"
            raise UserError(
                f"{self.folder} is in use by {holder}; wait for it, or choose another seed or name"
            ) from None


def _settle_rank(devices: int) -> None:
    """Where Lightning itself is the launcher, it takes the first process of every node for rank 0 until there is a
    Trainer, by when each of them would have locked the folder and written the status."""
    node = int(os.environ.get("NODE_RANK", "0"))
    if node and not {"RANK", "SLURM_PROCID"} & os.environ.keys():
        vars(rank_zero_only)["rank"] = node * devices + int(os.environ.get("LOCAL_RANK", "0"))


def _outcome(error: BaseException) -> dict[str, Any]:
    if isinstance(error, (Interrupted, KeyboardInterrupt)):
        return {"state": "interrupted", "message": str(error) or "SIGINT"}
    kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
    return {"state": "failed", "message": f"{kind}{error}"}
