"""results.jsonl: one row per figure that was measured, with its provenance."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_only

from experiments.atomic import write_text

Row = dict[str, Any]
IDENTITY = ("metric", "score", "dataset", "split", "level", "tree", "attack", "attack_name", "stage", "seed")
MEASURED = ("value", "n", "checks")


def read(path: Path) -> list[Row]:
    """All rows, oldest first; none where the file does not exist."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@rank_zero_only
def append(path: Path, rows: Iterable[Mapping[str, Any]], provenance: Mapping[str, Any]) -> None:
    """Adds rows, from rank 0 only. What is measured again replaces its earlier row, so a resumed run has none twice.

    Raises KeyError for a row that lacks one of the IDENTITY or MEASURED columns, ValueError for a figure that is not
    finite.
    """
    fresh = [_complete(row, provenance) for row in rows]
    replaced = {_identity(row) for row in fresh}
    kept = [row for row in read(path) if _identity(row) not in replaced]
    write_text(path, "".join(json.dumps(row, allow_nan=False) + "\n" for row in kept + fresh))


def _complete(row: Mapping[str, Any], provenance: Mapping[str, Any]) -> Row:
    missing = [column for column in (*IDENTITY, *MEASURED) if column not in row]
    if missing:
        raise KeyError(f"a result row lacks {', '.join(missing)}: {dict(row)}")
    return {**row, **provenance}


def _identity(row: Mapping[str, Any]) -> str:
    return json.dumps([row[column] for column in IDENTITY], sort_keys=True)
