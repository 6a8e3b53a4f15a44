"""Which classes or concepts a text names: by their names, by synonyms, or as what they are a kind of."""

import re
from collections.abc import Mapping, Sequence
from typing import Literal

from lightning_modules.antibodies.words import words
from lightning_modules.hierarchy.matching import match_classes
from lightning_modules.hierarchy.wordnet import nouns
from lightning_modules.hierarchy.wordnet.tree import synsets

How = Literal["exactly", "synonym", "hypernym"]
HOWS: tuple[How, ...] = ("exactly", "synonym", "hypernym")  # the strongest first
ARTICLES = ("a", "an", "the")

Phrase = tuple[str, ...]


def meanings(class_names: Sequence[str], given: str | None) -> tuple[str | None, ...]:
    """WordNet's id of each class: as a file or `imagenet-1k` has them, or else the best match of the name; None where
    WordNet has no such noun.

    Raises:
        DataError: a file that does not fit the classes.
    """
    if given is not None:
        return synsets("antibodies", given, class_names)
    return tuple(match.synsets[0] if match.synsets else None for match in match_classes(class_names).matches)


def ancestors(wnid: str) -> set[str]:
    """All that a synset is a kind of, along every one of its hypernyms; without itself."""
    found: set[str] = set()
    open_ends = [wnid]
    while open_ends:
        above = [each for each in nouns()[open_ends.pop()].hypernyms if each not in found]
        found.update(above)
        open_ends += above
    return found


class NameIndex:
    """Finds names in texts: a name or a synonym anywhere, and a hypernym where it is all that a text says ("animal",
    but not "stuffed animal"). What a name has in parentheses does not count, nor do case, number and punctuation.
    """

    def __init__(self, names: Sequence[str], wnids: Sequence[str | None]) -> None:
        """
        Args:
            wnids: of each name, see `meanings`.
        """
        self.names = tuple(names)
        self._phrases: dict[Phrase, dict[int, How]] = {}
        self._kinds: dict[Phrase, list[int]] = {}
        for index, (name, wnid) in enumerate(zip(names, wnids, strict=True)):
            self._add(index, name, wnid)
        self._longest = max(map(len, self._phrases), default=0)

    def find(self, text: str) -> Mapping[int, How]:
        """Index of each name that the text holds -> how, the strongest way."""
        said = words(text)
        found: dict[int, How] = {}
        for start in range(len(said)):
            for end in range(start + 1, min(len(said), start + self._longest) + 1):
                for index, how in self._phrases.get(said[start:end], {}).items():
                    found[index] = min(how, found.get(index, how), key=HOWS.index)
        whole = said[1:] if said[:1] and said[0] in ARTICLES else said
        return found | {index: "hypernym" for index in self._kinds.get(whole, ()) if index not in found}

    def _add(self, index: int, name: str, wnid: str | None) -> None:
        plain = words(re.sub(r"\(.*?\)", " ", name)) or words(name)
        self._phrases.setdefault(plain, {})[index] = "exactly"
        if wnid is None:
            return
        for lemma in nouns()[wnid].lemmas:
            self._phrases.setdefault(words(lemma), {}).setdefault(index, "synonym")
        for kind in dict.fromkeys(words(lemma) for above in ancestors(wnid) for lemma in nouns()[above].lemmas):
            self._kinds.setdefault(kind, []).append(index)
