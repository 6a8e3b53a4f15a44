"""Files that are either the old ones or the new ones, never half of one."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def replacing(path: Path, durable: bool = True) -> Iterator[BinaryIO]:
    """A binary file that takes the place of `path` once it is written, flushed and closed without an error.

    durable: whether it also outlives a power cut; costs the disk's time.

    Raises OSError where the disk is full; `path` is then what it was before, and nothing is left beside it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("wb") as file:
            yield file
            file.flush()
            if durable:
                os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Writes a small text file in one go."""
    with replacing(path, durable=False) as file:
        file.write(text.encode())
