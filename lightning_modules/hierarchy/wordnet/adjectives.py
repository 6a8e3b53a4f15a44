"""The list of adjectives, adjectives.txt.gz: one a line, in the order of the alphabet."""

import gzip
from functools import cache
from importlib.resources import files


@cache
def adjectives() -> tuple[str, ...]:
    """All 21,537 adjectives of WordNet 3.0, in their own spelling."""
    with (files(__package__) / "adjectives.txt.gz").open("rb") as packed:
        return tuple(gzip.decompress(packed.read()).decode().splitlines())
