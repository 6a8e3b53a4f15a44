"""A bank as a file: JSONL, an antibody a line. Reading one needs no language model."""

from collections.abc import Sequence
from pathlib import Path

from configs.errors import DataError
from lightning_modules.antibodies.antibody import from_json, to_json
from lightning_modules.antibodies.bank import Bank
from lightning_modules.antibodies.json_lines import json_line, read_json_lines

OUTCOMES = ("own", "nearest", "kept", "reason")  # of a selection, as a run writes them; a bank is read without them


def read_bank(path: Path, class_names: Sequence[str], name: str) -> Bank:
    """The bank in a file, for the data set's classes; some of them may have no antibody.

    Raises:
        DataError: the file can't be read, a line is malformed, no antibody is there, or one is of another class.
    """
    antibodies = []
    for number, values in read_json_lines(path):
        try:
            antibodies.append(from_json({key: value for key, value in values.items() if key not in OUTCOMES}))
        except ValueError as error:
            raise DataError(f"{path}, line {number} has {error}; correct the line, or take it out") from None
    if not antibodies:
        raise DataError(f"the bank {path} holds no antibody; write one a line")
    return Bank(name, tuple(class_names), tuple(antibodies))


def write_bank(path: Path, bank: Bank) -> None:
    """Writes the file, whole or not at all."""
    write_lines(path, "".join(json_line(to_json(each)) for each in bank.antibodies))


def write_lines(path: Path, text: str) -> None:
    """Puts a text in a file's place in one go."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_text(text, "utf-8")
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
