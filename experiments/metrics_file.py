"""metrics.csv: what training logged, one row a step."""

import csv
import io
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from experiments.atomic import write_text


class MetricsFile(Logger):
    """Appends a row per logged step; the file survives a resume.

    A new column widens the header of what is there. Values logged for the same step end up in the same row. `forget`
    drops the rows that a resumed run is about to log again. Written by rank 0 only.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self._columns, self._last = self._read()
        self._last_start = self._start_of_last()

    @property
    def name(self) -> str:
        """Of the file, not of the run."""
        return self.path.stem

    @property
    def version(self) -> int | str | None:
        """A run has one metrics file."""
        return None

    @rank_zero_only
    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: the run's config.yaml has them."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Adds the values to the row of `step`, which is the last one or a new one."""
        row = {"step": str(step), **{name: f"{value:.9g}" for name, value in metrics.items()}}
        new = [name for name in row if name not in self._columns]
        if new:
            self._widen(new)
        if self._last.get("step") == row["step"]:
            row = {**self._last, **row}
            self._truncate(self._last_start)
        self._append(row)

    @rank_zero_only
    def forget(self, after: int) -> None:
        """Drops the rows of steps later than `after`."""
        rows = [row for row in self._rows() if int(row["step"]) <= after]
        self._rewrite(rows)

    def _rows(self) -> list[dict[str, str]]:
        if not self.path.exists():
            return []
        with self.path.open(newline="") as file:
            complete = [line for line in file.read().splitlines(keepends=True) if line.endswith("\n")]
        return [row for row in csv.DictReader(complete) if None not in row.values()]

    def _read(self) -> tuple[list[str], dict[str, str]]:
        rows = self._rows()
        return (list(rows[0]), rows[-1]) if rows else ([], {})

    def _widen(self, new: list[str]) -> None:
        self._columns = self._columns + new
        self._rewrite(self._rows())

    def _rewrite(self, rows: list[dict[str, str]]) -> None:
        text = self._lines([dict(zip(self._columns, self._columns, strict=True)), *rows]) if self._columns else ""
        write_text(self.path, text)
        self._last = rows[-1] if rows else {}
        self._last_start = self._start_of_last()

    def _append(self, row: dict[str, str]) -> None:
        with self.path.open("a", newline="") as file:
            self._last_start = file.tell()
            file.write(self._lines([row]))
        self._last = row

    def _truncate(self, size: int) -> None:
        with self.path.open("r+b") as file:
            file.truncate(size)

    def _start_of_last(self) -> int:
        return self.path.stat().st_size - len(self._lines([self._last]).encode()) if self._last else 0

    def _lines(self, rows: list[dict[str, str]]) -> str:
        buffer = io.StringIO()
        csv.DictWriter(buffer, self._columns, restval="", lineterminator="\n").writerows(rows)
        return buffer.getvalue()
