"""Two class trees over the same leaves: Unicode's groups, as curated, and WordNet's nearest hypernyms."""

import csv
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

from datamodules.sources.openmoji.concepts import Concept

Tree = dict[str, list[list[Any]]]
WORDNET_LEVELS = 5  # nearest hypernyms above the leaf


class Synset(NamedTuple):
    """A WordNet noun synset: its lemmas, and its first hypernym (itself for the root)."""

    lemmas: list[str]
    hypernym: str


def trees(leaves: Sequence[Concept]) -> dict[str, Tree]:
    """Both trees as `{"levels": names per level, leaves first, "parents": index into the next level}`."""
    return {"unicode": unicode_tree(leaves), "wordnet": wordnet_tree(leaves)}


def unicode_tree(leaves: Sequence[Concept]) -> Tree:
    """Leaf -> subgroup -> group."""
    return _tree([[leaf.name, leaf.subgroup, leaf.group] for leaf in leaves])


def wordnet_tree(leaves: Sequence[Concept], levels: int = WORDNET_LEVELS) -> Tree:
    """Leaf -> its nearest `levels` hypernyms; the root stands in for the ancestors that a leaf lacks."""
    table = synsets()
    paths = []
    for leaf in leaves:
        path = [leaf.wnid]
        for _ in range(levels):
            path.append(table[path[-1]].hypernym)
        paths.append([f"{leaf.wnid}:{leaf.name}", *path[1:]])
    tree = _tree(paths)
    leaf_names = [leaf.name for leaf in leaves]
    return {**tree, "levels": [leaf_names, *(_names(level) for level in tree["levels"][1:])]}


def hypernyms(wnid: str, levels: int = WORDNET_LEVELS) -> list[str]:
    """Names of the nearest superclasses of a synset, the nearest first, up to the root."""
    table = synsets()
    path = [wnid]
    while len(path) <= levels and table[path[-1]].hypernym != path[-1]:
        path.append(table[path[-1]].hypernym)
    return [table[node].lemmas[0] for node in path[1:]]


@cache
def synsets() -> dict[str, Synset]:
    """The synsets on the way from the concepts to WordNet's root, by wnid."""
    with (files(__package__) / "wordnet_excerpt.tsv").open(encoding="utf-8") as table:
        rows = list(csv.DictReader(table, delimiter="\t"))
    return {row["wnid"]: Synset(row["lemmas"].split("|"), row["hypernym"] or row["wnid"]) for row in rows}


def _names(wnids: Sequence[str]) -> list[str]:
    """Each synset's first lemma; two that share it also say what they are a kind of ("food, a kind of matter")."""
    table = synsets()
    first = [table[wnid].lemmas[0] for wnid in wnids]
    kinds = [table[table[wnid].hypernym].lemmas[0] for wnid in wnids]
    return [
        f"{name}, a kind of {kind}" if first.count(name) > 1 else name for name, kind in zip(first, kinds, strict=True)
    ]


def _tree(paths: Sequence[Sequence[str]]) -> Tree:
    """Number the nodes of each level in order of first appearance."""
    levels = [list(dict.fromkeys(level)) for level in zip(*paths, strict=True)]
    numbers = [{node: i for i, node in enumerate(level)} for level in levels]
    parents: list[list[int]] = [[-1] * len(level) for level in levels[:-1]]
    for path in paths:
        for depth in range(len(parents)):
            parents[depth][numbers[depth][path[depth]]] = numbers[depth + 1][path[depth + 1]]
    return {"levels": levels, "parents": parents}
