"""Candidates of NegLabel's rule: all words of WordNet. `select` says which are far from the classes."""

import random
from collections.abc import Iterable, Sequence

from configs.schema.antibodies import MinedBank
from lightning_modules.antibodies.antibody import LONGEST, Antibody
from lightning_modules.hierarchy.wordnet import adjectives, nouns

# Lexicographer's files that the published selection leaves out.
ABSENT = {"noun.person", "noun.quantity", "noun.group"}
# What an adjective is put before in a conjugated pool: words that any picture may be called by.
GENERAL = ("area", "creature", "environment", "item", "landscape", "object", "pattern", "place", "scene", "space",
           "structure", "thing", "view", "vista")  # fmt: skip
GENERATOR = "negative_mining"


def mined(source: MinedBank, class_names: Sequence[str]) -> list[Antibody]:
    """Nouns, then adjectives, each word once, none of which is spelt as a class is."""
    classes = {name.casefold() for name in class_names}
    lemmas = (lemma for synset in nouns().values() if synset.topic not in ABSENT for lemma in synset.lemmas)
    named = _spread(_usable(lemmas, classes), source.candidates)
    described = _spread(_usable(adjectives(), classes | {each.casefold() for each in named}), source.candidates)
    if source.pool == "csp":
        draw = random.Random(source.seed)
        described = [f"{adjective} {draw.choice(GENERAL)}" for adjective in described]
    return [
        Antibody(None, family, text, GENERATOR)
        for family, texts in (("noun", named), ("adjective", described))
        for text in texts
    ]


def _usable(texts: Iterable[str], taken: set[str]) -> list[str]:
    return [each for each in dict.fromkeys(texts) if each.casefold() not in taken and len(each) <= LONGEST - 20]


def _spread(texts: Sequence[str], count: int | None) -> list[str]:
    """`count` of the texts at even distances; all of them where there are no more."""
    if count is None or count >= len(texts):
        return list(texts)
    return [texts[place * len(texts) // count] for place in range(count)]
