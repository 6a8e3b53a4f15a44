"""JSON, an object a line."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from configs.errors import DataError


def json_line(values: Mapping[str, Any]) -> str:
    """The line, with its end; keys stay in order, and text is readable."""
    return json.dumps(values, ensure_ascii=False) + "\n"


def read_json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line numbers, from 1, and objects; empty lines are left out.

    Raises:
        DataError: the file can't be read, or a line is no JSON object.
    """
    try:
        lines = path.read_text("utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"the bank {path} can't be read ({error}); correct the path or the file") from error
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield number, _object(line, f"{path}, line {number}")


def _object(line: str, where: str) -> dict[str, Any]:
    try:
        values = json.loads(line)
    except (ValueError, RecursionError):
        raise DataError(f"{where} is no JSON; write one object a line, or take the line out") from None
    if not isinstance(values, dict):
        raise DataError(f'{where} is no JSON object; write {{"class": .., "family": .., "text": ..}}')
    return values
