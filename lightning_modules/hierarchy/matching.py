"""Class names -> WordNet synsets, as a report that a person reviews and gives back as `synsets:` file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from typing import Literal

from lightning_modules.hierarchy.wordnet import Synset, hypernym_path, nouns

# The topics that photographs show, of all lexicographer's files; a name's other meanings come after these.
VISIBLE = {f"noun.{topic}" for topic in ("animal", "artifact", "body", "food", "object", "person", "plant")}
# Plural endings and what stands in their place in the singular; WordNet's lemmas are singular.
PLURALS = (("s", ""), ("ses", "s"), ("xes", "x"), ("zes", "z"), ("ches", "ch"), ("shes", "sh"), ("men", "man"),
           ("ies", "y"))  # fmt: skip
HEADER = "# wnid", "class", "status", "synset", "hypernyms", "others"
UNKNOWN = "?"


@dataclass(frozen=True)
class Match:
    """The synsets whose lemmas hold a class name, best first; where there are none, lemmas that resemble it."""

    class_name: str
    synsets: tuple[str, ...]
    suggestions: tuple[str, ...] = ()

    @property
    def status(self) -> Literal["matched", "ambiguous", "missing"]:
        """By how many synsets there are: one, several, none."""
        return "missing" if not self.synsets else "matched" if len(self.synsets) == 1 else "ambiguous"


@dataclass(frozen=True)
class Matching:
    """One match for each class, in the order of the labels."""

    matches: tuple[Match, ...]

    def of(self, status: Literal["matched", "ambiguous", "missing"]) -> tuple[Match, ...]:
        """The matches of one status."""
        return tuple(match for match in self.matches if match.status == status)

    def to_tsv(self) -> str:
        """A line a class, for review: the synset taken (? where there is none, to be replaced by a wnid), the class,
        the status, what the synset is, and what else the name may mean or may have meant."""
        return "".join("\t".join(row) + "\n" for row in (HEADER, *map(_row, self.matches)))


def match_classes(class_names: Sequence[str]) -> Matching:
    """Looks every class name up among the lemmas, as it is, then in the singular. Case, _ and - do not count.

    The table has no frequencies of meanings. Of several synsets the first is that which lists the word earliest among
    its lemmas, of kinds of things before single instances, and of what photographs show before what they don't.
    """
    return Matching(tuple(_match(each) for each in class_names))


def _match(class_name: str) -> Match:
    for word in _forms(_plain(class_name)):
        if found := _lemmas().get(word):
            return Match(class_name, tuple(sorted(found, key=lambda wnid: _rank(nouns()[wnid], word))))
    return Match(class_name, (), _similar(_plain(class_name)))


def _plain(text: str) -> str:
    return " ".join(text.casefold().replace("_", " ").replace("-", " ").split())


def _forms(word: str) -> list[str]:
    return [word, *(word.removesuffix(plural) + single for plural, single in PLURALS if word.endswith(plural))]


def _rank(synset: Synset, word: str) -> tuple[bool, bool, int, str]:
    place = [_plain(lemma) for lemma in synset.lemmas].index(word)
    return (synset.instance, synset.topic not in VISIBLE, place, synset.wnid)


def _similar(word: str) -> tuple[str, ...]:
    """Lemmas that are spelt nearly like it, and those of its last and its first word."""
    alike = [lemma for lemma in _lemmas() if lemma[:2] == word[:2] and abs(len(lemma) - len(word)) <= 2]
    parts = [word.split()[place] for place in (-1, 0)] if " " in word else []
    known = [form for part in parts for form in _forms(part) if form in _lemmas()]
    return tuple(dict.fromkeys([*get_close_matches(word, alike, n=3, cutoff=0.8), *known]))


@cache
def _lemmas() -> Mapping[str, list[str]]:
    """Word -> wnids."""
    found: dict[str, list[str]] = {}
    for synset in nouns().values():
        for lemma in dict.fromkeys(map(_plain, synset.lemmas)):
            found.setdefault(lemma, []).append(synset.wnid)
    return found


def _row(match: Match) -> tuple[str, ...]:
    if not match.synsets:
        near = [f"{lemma}: {wnid}" for lemma in match.suggestions for wnid in _lemmas()[lemma][:1]]
        return (UNKNOWN, match.class_name, match.status, "", "", "; ".join(near))
    taken, *others = match.synsets
    described = [f"{wnid} {_described(wnid)}" for wnid in others]
    return (
        taken,
        match.class_name,
        match.status,
        ", ".join(nouns()[taken].lemmas),
        _described(taken),
        "; ".join(described),
    )


def _described(wnid: str) -> str:
    """The names on its way to the root."""
    return " > ".join(nouns()[above].name for above in hypernym_path(wnid))
