"""The mirror of a run, as the verbs use it."""

import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from configs.schema import ExperimentConfig
from datamodules.base import PlannedDataModule
from datamodules.classification import ClassificationDataModule
from experiments.atomic import write_text
from experiments.models.labels import Labels
from experiments.runs import Run, rank
from experiments.stop import Interrupted
from experiments.tracking.courier import Courier
from experiments.tracking.introduction import identity, introduction, noted

RESULTS = ("config.yaml", "config.inputs.json", "status.json", "results.jsonl", "metrics.csv", "evidence-*.npz")
INTERRUPTED_S = 10.0  # of patience: whoever sent the signal has little
FALLBACK_S = 20.0  # beyond that, for the client to notice, and to write down what the server did not take


class Mirror:
    """A W&B run, which starts with the first thing that it is told, on rank 0 alone. It never raises."""

    def __init__(self, run: Run, config: ExperimentConfig) -> None:
        self._run, self._config = run, config
        self._courier: Courier | None = None
        self._off = config.logging.wandb == "disabled"
        self._exported = False

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Values of one step, plotted against `trainer/global_step`: W&B's own step starts anew with each resume."""
        self._send("log", metrics=dict(metrics), step=step)

    def forget(self, after: int) -> None:
        """Nothing: W&B keeps what it has, and plots the repeated steps over it."""

    def note(self, **facts: Any) -> None:
        """Adds to the run's configuration there, below `run`."""
        self._send("note", facts=facts)

    def measured(self, stage: str, data: PlannedDataModule) -> None:
        """Shows what results.jsonl and evidence-STAGE.npz hold of this data: figures, their table, and pictures with
        the places of their classes in the trees."""
        if self._listening and isinstance(data, ClassificationDataModule):
            from experiments.tracking.measured import measured  # which loads pandas

            self.note(manifest_digest=data.digest)
            self._send("measured", **measured(self._run.folder, stage, Labels.of(self._config, data).forest.trees))
            if stage == "after" and self._run.model.exists():
                self.exported()

    def bank(self, folder: Path, name: str) -> None:
        """Files the folder of a bank of antibodies as what this run was made from; nothing where there is none."""
        if folder.exists():
            kind = {"name": f"bank-{name}", "type": "antibody-bank"}
            self._send("artifact", **kind, paths=[str(folder)], used=True)

    def exported(self) -> None:
        """The model of the run is new, or its card is: it is filed at the end, unless that is switched off."""
        self._exported = self._config.logging.upload_model

    def close(self, exit_code: int = 0) -> None:
        """Uploads what the run has written, and waits for the end of that, within `logging.patience`."""
        if self._courier is None:
            return
        patience = self._config.logging.patience
        patience = min(patience, INTERRUPTED_S) if exit_code else patience
        paths = [path for pattern in RESULTS for path in sorted(self._run.folder.glob(pattern))]
        self._file("results", paths)
        if self._exported:
            self._file("model", [self._run.model], ["last", "best"] if self._config.trainer.patience else ["last"])
        self._send("finish", exit_code=exit_code, patience=patience)
        courier, self._courier = self._courier, None
        if not courier.close(patience + FALLBACK_S):
            _say(f"Weights & Biases did not come to an end; see {self._log}. {self._kept}")
        elif courier.lost:
            _say(f"Weights & Biases lacks {courier.lost} rows of this run; {self._run.metrics} has them")

    def _file(self, kind: str, paths: Sequence[Path], aliases: Sequence[str] = ()) -> None:
        name = f"{kind}-{identity(self._run)}"
        self._send("artifact", name=name, type=kind, paths=[str(path) for path in paths], aliases=aliases)

    @property
    def _listening(self) -> bool:
        further = int(os.environ.get("NODE_RANK", "0"))  # a node whose first process takes itself for rank 0 until then
        return not self._off and not rank() and not further

    @property
    def _log(self) -> Path:
        return self._run.folder / "wandb" / "client.log"

    @property
    def _kept(self) -> str:
        return f"What it lacks is kept: wandb sync --include-online {self._run.folder / 'wandb'}"

    def _send(self, kind: str, **content: Any) -> None:
        if not self._listening:
            return
        try:
            if self._courier is None:
                write_text(noted(self._run), identity(self._run))
                self._courier = Courier(self._log, self._heard)
                self._courier.send(introduction(self._run, self._config))
            self._courier.send({"kind": kind, **content})
        except OSError as error:  # no process, no disk: a mirror may not matter
            self._off = True
            _say(f"Weights & Biases is off for this run: {error}")

    def _heard(self, message: Mapping[str, Any]) -> None:
        if message["kind"] == "stop":
            _say("Weights & Biases: a person asks this run to stop")
            self._run.stop.request(signal.SIGINT)  # as Ctrl-C: not queued again
        else:
            _say(f"Weights & Biases {message['problem']}. {self._kept}")


@contextmanager
def mirrored(run: Run, config: ExperimentConfig) -> Iterator[Mirror]:
    """A mirror that ends with the block, in the state in which the block ends."""
    mirror = Mirror(run, config)
    try:
        yield mirror
    except BaseException as error:
        mirror.close(error.exit_code if isinstance(error, Interrupted) else 1)
        raise
    mirror.close()


def _say(line: str) -> None:
    print(line, file=sys.stderr)
