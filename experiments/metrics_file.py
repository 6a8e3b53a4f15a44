"""metrics.csv: what training logged, one row a step."""

import csv
import io
from collections.abc import Mapping
from pathlib import Path

from experiments.atomic import write_text


class MetricsFile:
    """A row per logged step, in a file that survives a resume.

    A new column widens the header of what is there. Values logged for the same step end up in the same row. `forget`
    drops the rows that a resumed run is about to log again. One process writes it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._columns, rows = self._read()
        self._last = rows[-1] if rows else {}
        self._last_start = self._start_of_last()

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Adds the values to the row of `step`, which is the last one or a new one."""
        row = {"step": str(step), **{name: f"{value:.9g}" for name, value in metrics.items()}}
        new = [name for name in row if name not in self._columns]
        if new:
            self._columns += new
            self._rewrite(self._read()[1])
        if self._last.get("step") == row["step"]:
            row = {**self._last, **row}
            self._truncate(self._last_start)
        self._append(row)

    def forget(self, after: int) -> None:
        """Drops the rows of steps later than `after`, and a row that a kill left half written."""
        self._rewrite([row for row in self._read()[1] if int(row["step"]) <= after])

    def _read(self) -> tuple[list[str], list[dict[str, str]]]:
        """Columns and complete rows of the file."""
        if not self.path.exists():
            return [], []
        with self.path.open(newline="") as file:
            reader = csv.DictReader([line for line in file if line.endswith("\n")])
        return list(reader.fieldnames or []), list(reader)

    def _rewrite(self, rows: list[dict[str, str]]) -> None:
        if self._columns:
            write_text(self.path, self._lines([dict(zip(self._columns, self._columns, strict=True)), *rows]))
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
