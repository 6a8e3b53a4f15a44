"""The table of emoji, emoji_taxonomy.tsv.gz: hexcode, CLDR label, group, subgroup, and keywords (tags) joined by |."""

import csv
import gzip
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files

from configs.errors import DataError
from lightning_modules.hierarchy.outline import outlined, some
from lightning_modules.hierarchy.tree import Tree

Superclasses = tuple[str, str]  # subgroup, group


def unicode_tree(name: str, class_names: Sequence[str]) -> Tree:
    """Class -> subgroup -> group. A class is the emoji of that label; without one, the emoji of that keyword, which
    must be of one subgroup. Hyphens in the names of groups become spaces: "animal mammal".

    Raises:
        DataError: classes that name no emoji, or emoji of several subgroups.
    """
    found = {each: _superclasses(each) for each in class_names}
    missing = [each for each, ways in found.items() if not ways]
    if missing:
        raise DataError(
            f"tree {name!r} finds no emoji called {some(missing)}; use the CLDR labels, or write the tree as a file"
        )
    unclear = [each for each, ways in found.items() if len(ways) > 1]
    if unclear:
        groups = " and ".join(subgroup for subgroup, _ in found[unclear[0]][:2])
        raise DataError(
            f"tree {name!r} finds emoji of several groups, such as {groups}, for {some(unclear)}; use the "
            "CLDR labels, or write the tree as a file"
        )
    return outlined(name, [(each, *found[each][0]) for each in class_names], class_names, f"tree {name!r}")


def _superclasses(class_name: str) -> list[Superclasses]:
    labels, tags = _table()
    word = class_name.casefold()
    return sorted(labels.get(word) or tags.get(word) or ())


@cache
def _table() -> tuple[Mapping[str, set[Superclasses]], Mapping[str, set[Superclasses]]]:
    """Where the emoji of each label, and of each keyword, belong."""
    with (files(__package__) / "emoji_taxonomy.tsv.gz").open("rb") as packed:
        rows = csv.DictReader(gzip.decompress(packed.read()).decode().splitlines(), delimiter="\t")
    labels: dict[str, set[Superclasses]] = {}
    tags: dict[str, set[Superclasses]] = {}
    for row in rows:
        superclasses = (row["subgroup"].replace("-", " "), row["group"].replace("-", " "))
        labels.setdefault(row["label"].casefold(), set()).add(superclasses)
        for tag in row["tags"].split("|"):
            tags.setdefault(tag.casefold(), set()).add(superclasses)
    return labels, tags
