"""Antibodies that a person wrote."""

from collections.abc import Sequence
from pathlib import Path

from configs.errors import DataError
from configs.schema.antibodies import FileBank
from lightning_modules.antibodies.antibody import LONGEST, Antibody
from lightning_modules.antibodies.bank_file import read_bank
from lightning_modules.hierarchy.class_file import read_lists
from lightning_modules.language_model import clean

LISTS = (".yaml", ".yml", ".json")
GENERATOR = "file"


def written(source: FileBank, class_names: Sequence[str], name: str) -> list[Antibody]:
    """What the file holds, in its order.

    Raises:
        DataError: the file can't be read, holds nothing, or a text is empty, too long, or has a {c} out of place; and
            as `read_bank` does.
    """
    path = Path(source.path)
    if path.suffix == ".jsonl":
        return list(read_bank(path, class_names, name).antibodies)
    owned: list[tuple[str | None, str]]
    if path.suffix in LISTS:
        lists = read_lists(path, "the bank", "texts", LONGEST)
        owned = [(owner, text) for owner, texts in lists.items() for text in texts]
    else:
        owned = [(None, text) for text in _lines(path)]
    try:
        return [Antibody(owner, source.family, text, GENERATOR) for owner, text in owned]
    except ValueError as error:
        raise DataError(f"the bank {path} has a text with {error}; correct the file") from None


def _lines(path: Path) -> list[str]:
    """Lines that hold a text; those that begin with # are comments."""
    try:
        lines = [line for line in path.read_text("utf-8").splitlines() if line.strip() and not line.startswith("#")]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"the bank {path} can't be read ({error}); correct the path or the file") from error
    if not lines:
        raise DataError(f"the bank {path} holds no text; write one a line")
    try:
        return [clean(line, LONGEST) for line in lines]
    except ValueError as error:
        raise DataError(f"the bank {path} has {error}; correct the file") from None
