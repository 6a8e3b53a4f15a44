"""Folders that hold runs."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Place:
    """What a source holds: folders of runs, and a sentence for each run that has none."""

    folders: Sequence[Path]
    excluded: Sequence[str] = ()
