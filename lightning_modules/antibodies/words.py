"""Words by which texts are compared: without case, punctuation and number."""

import re

IRREGULAR = {
    "axes": "axe",
    "children": "child",
    "feet": "foot",
    "geese": "goose",
    "kiwis": "kiwi",
    "lenses": "lens",
    "lice": "louse",
    "men": "man",
    "mice": "mouse",
    "oxen": "ox",
    "pies": "pie",
    "skis": "ski",
    "taxis": "taxi",
    "teeth": "tooth",
    "ties": "tie",
}
# Endings of plurals and of their singulars that become one; the first that fits counts.
ENDINGS = (
    (re.compile(r"men$"), "man"),
    (re.compile(r"(ies|ie)$"), "y"),  # ponies, cookie
    (re.compile(r"(ves|fes|ve|fe)$"), "f"),  # wolves, glove, knife
    (re.compile(r"(?<=[sxz])(es|e)$|(?<=[cs]h)(es|e)$"), ""),  # buses, horse, boxes, axe, dishes
    (re.compile(r"(?<![sui])s$"), ""),  # dogs; not glass, cactus, iris
)
WORD = re.compile(r"\w+")
POSSESSIVE = re.compile(r"['’]s\b")


def words(text: str) -> tuple[str, ...]:
    """In the singular, or what stands for it: a form that a word shares with its plural, such as `hors`."""
    return tuple(map(_singular, WORD.findall(POSSESSIVE.sub("", text.casefold()))))


def _singular(word: str) -> str:
    word = IRREGULAR.get(word, word)
    for ending, replacement in ENDINGS:
        stem, found = ending.subn(replacement, word)
        if found and len(word) > 3:
            return stem
    return word
