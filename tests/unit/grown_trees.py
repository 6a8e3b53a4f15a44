"""Class trees made up at random."""

import random
from itertools import pairwise

from lightning_modules.hierarchy import Tree


def grow(seed: int, leaves: int = 12) -> Tree:
    """Up to four levels above at most so many leaves; the children of a class lie anywhere in their level."""
    chance = random.Random(seed)
    sizes = [chance.randint(1, leaves)]
    for _ in range(chance.randint(0, 4)):
        sizes.append(chance.randint(1, sizes[-1]))
    parents = []
    for below, above in pairwise(sizes):
        row = [*range(above), *(chance.randrange(above) for _ in range(below - above))]
        chance.shuffle(row)
        parents.append(tuple(row))
    levels = tuple(tuple(f"class {level}-{place}" for place in range(size)) for level, size in enumerate(sizes))
    return Tree("grown", levels, tuple(parents))
