"""Random streams of the data side. Each is hashed from what it is for, never added up, so that no two of them meet."""

from enum import IntEnum

import numpy as np


class Purpose(IntEnum):
    """What a stream is for. It leads the entropy, so that streams with paths of different lengths differ as well."""

    SHARDS = 1
    WINDOW = 2
    AUGMENT = 3
    REPLACE = 4
    WORKER = 5
    PACK = 6
    GROUPS = 7


def sequence(purpose: Purpose, *path: int) -> np.random.SeedSequence:
    """The seed sequence of (purpose, path); `path` is of non-negative integers, its length is fixed per purpose."""
    return np.random.SeedSequence([int(purpose), *path])


def stream(purpose: Purpose, *path: int) -> np.random.Generator:
    """A generator that depends on (purpose, path) alone."""
    return np.random.Generator(np.random.PCG64(sequence(purpose, *path)))
