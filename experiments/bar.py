"""How progress bars look."""

import sys
from typing import Any

from tqdm import tqdm


def open_bar(label: str, total: int, unit: str, initial: int = 0) -> "tqdm[Any]":
    """A bar that moves smoothly in a terminal; a line every ten seconds where there is none."""
    pause = 0.1 if sys.stderr.isatty() else 10.0
    return tqdm(total=total, initial=initial, desc=label, unit=unit, mininterval=pause)
