"""The table of noun synsets, nouns.tsv.gz, which has no header and these columns:

wnid        n and the synset's eight-digit offset in WordNet 3.0, as ImageNet's folders are called
topic       the lexicographer's file: noun.animal, noun.artifact, ...
lemmas      its words, joined by |
hypernyms   wnids of what it is a kind (or an instance) of, joined by a comma; only n00001740, entity, has none
c or i      a concept, or a single instance such as a city
"""

import gzip
from functools import cache
from importlib.resources import files
from typing import NamedTuple


class Synset(NamedTuple):
    """One meaning, with all words for it. `instance`: of one thing, such as a city, and not of a kind of things."""

    wnid: str
    topic: str
    lemmas: tuple[str, ...]
    hypernyms: tuple[str, ...]
    instance: bool

    @property
    def name(self) -> str:
        """Its first lemma."""
        return self.lemmas[0]


@cache
def nouns() -> dict[str, Synset]:
    """All 82,115 noun synsets by wnid, read once in about a quarter of a second."""
    with (files(__package__) / "nouns.tsv.gz").open("rb") as packed:
        rows = gzip.decompress(packed.read()).decode().splitlines()
    return {synset.wnid: synset for synset in map(_synset, rows)}


def hypernym_path(wnid: str) -> tuple[str, ...]:
    """The synset, its first hypernym, that one's first, and so on to n00001740, entity.

    WordNet gives 2,213 nouns several hypernyms (a dog is a canine and a domestic animal). The first is its main one;
    taking it makes the nouns a tree. ImageNet's own browser lists a synset under each of them instead.
    """
    path = [wnid]
    while hypernyms := nouns()[path[-1]].hypernyms:
        path.append(hypernyms[0])
    return tuple(path)


def _synset(row: str) -> Synset:
    wnid, topic, lemmas, hypernyms, kind = row.split("\t")
    above = tuple(hypernyms.split(",")) if hypernyms else ()
    return Synset(wnid, topic, tuple(lemmas.split("|")), above, kind == "i")
