"""Antibodies from WordNet alone: what a class might be taken for, and what can't be true of it. Nothing is random."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import islice
from pathlib import Path

from configs.schema.antibodies import LexiconBank
from lightning_modules.antibodies.antibody import LONGEST, PLACE, Antibody
from lightning_modules.antibodies.names import NameIndex, ancestors, meanings
from lightning_modules.hierarchy.matching import VISIBLE
from lightning_modules.hierarchy.wordnet import Synset, hypernym_path, nouns

SPOKEN = VISIBLE - {"noun.person"}  # WordNet's words for people include slurs
UNFIT = {"n02083672"}  # a female of dogs, foxes and wolves alike, which is no other kind of animal
PROMPTS = Path(__file__).parent / "prompts"
FURTHEST = 3  # levels up, and as many down again: second cousins
GENERATOR = "lexicon"


def lexicon(source: LexiconBank, class_names: Sequence[str]) -> list[Antibody]:
    """The antibodies of each class in turn: look-alikes, nearest relatives first, then contexts. A class that WordNet
    does not have gets contexts alone.

    Raises:
        DataError: a file of synsets that does not fit the classes.
    """
    wnids = meanings(class_names, source.synsets)
    index = NameIndex(class_names, wnids)
    relatives = Relatives(index, [wnid for wnid in wnids if wnid is not None])
    sentences = _sentences(source.sentences, index)
    antibodies = []
    for place, (name, wnid) in enumerate(zip(class_names, wnids, strict=True)):
        texts = islice(relatives.of(wnid), source.look_alikes) if wnid is not None else ()
        antibodies += [Antibody(name, "look_alike", text, GENERATOR) for text in texts]
        count = min(source.contexts, len(sentences))
        turn = [sentences[(place * count + step) % len(sentences)] for step in range(count)]
        antibodies += [Antibody(name, "impossible_context", text, GENERATOR) for text in turn]
    return antibodies


class Relatives:
    """Nouns around a class in WordNet that are not in-distribution: neither a class, nor a kind of one, nor above one,
    nor spelt like one."""

    def __init__(self, index: NameIndex, wnids: Sequence[str]) -> None:
        self._index = index
        self._classes = set(wnids)
        self._barred = self._classes | UNFIT | {above for wnid in wnids for above in ancestors(wnid)}
        self._texts: dict[str, str | None] = {}

    def of(self, wnid: str) -> Iterator[str]:
        """Siblings, then cousins, then second cousins; plain words before compounds, kinds with many kinds of their own
        before rare ones. No text twice."""
        passed: set[str] = set()
        for ancestor, distance in zip(hypernym_path(wnid)[1:], range(1, FURTHEST + 1), strict=False):
            for relative in _descendants(ancestor, distance):
                text = self._text(relative)
                if text is not None and text not in passed:
                    passed.add(text)
                    yield text

    def _text(self, wnid: str) -> str | None:
        if wnid not in self._texts:
            self._texts[wnid] = self._judged(nouns()[wnid])
        return self._texts[wnid]

    def _judged(self, synset: Synset) -> str | None:
        """The first lemma that may be said; None where there is none, or where the synset is in-distribution."""
        if synset.instance or synset.topic not in SPOKEN or synset.wnid in self._barred:
            return None
        if ancestors(synset.wnid) & self._classes:
            return None
        return next((each for each in synset.lemmas if len(each) <= LONGEST and not self._index.find(each)), None)


@cache
def _descendants(ancestor: str, generations: int) -> tuple[str, ...]:
    """Those exactly so many generations below, in the order of `Relatives.of`."""
    level: Sequence[str] = [ancestor]
    for _ in range(generations):
        level = [child for each in level for child in _children().get(each, ())]
    return tuple(sorted(dict.fromkeys(level), key=_rank))


def _rank(wnid: str) -> tuple[int, int, str]:
    return len(nouns()[wnid].name.split()), -len(_children().get(wnid, ())), wnid


@cache
def _children() -> Mapping[str, list[str]]:
    """Synset -> those whose main hypernym it is."""
    found = defaultdict(list)
    for synset in nouns().values():
        for above in synset.hypernyms[:1]:
            found[above].append(synset.wnid)
    return found


def _sentences(version: str, index: NameIndex) -> list[str]:
    """The list, without those that name a class."""
    lines = (PROMPTS / f"sentences_{version}.txt").read_text("utf-8").splitlines()
    return [line for line in lines if not index.find(line.replace(PLACE, " "))]
