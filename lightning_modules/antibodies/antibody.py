"""One semantic antibody: a text of what a class is not."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lightning_modules.language_model import clean

LONGEST = 100  # characters of a text
LONGEST_LABEL = 60  # characters of a family or a generator's name
PLACE = "{c}"
ARTICLE = re.compile(r"^(a|an|the)\s+", re.IGNORECASE)


@dataclass(frozen=True)
class Antibody:
    """A noun phrase.

    class_name  the class that it is taken for; None: of no class.
    family      look_alike, impossible_context, ...
    text        may hold {c} once, which stands for the class's name; "" where it is noise.
    generator   the kind of bank that made it; `model`, `prompt`, `prompt_hash` and `date` say more where there is more.

    Raises:
        ValueError: a {c} without a class, or more than one.
    """

    class_name: str | None
    family: str
    text: str
    generator: str
    model: str | None = None
    prompt: str | None = None
    prompt_hash: str | None = None
    date: str | None = None

    def __post_init__(self) -> None:
        places = self.text.count(PLACE)
        if places > 1 or (places and self.class_name is None):
            raise ValueError("more than one {c}" if places > 1 else "a {c} and no class to put there")

    @property
    def caption(self) -> str:
        """The text with the class's name in it, and without an article, as class names go into a data set's
        templates: "a {c} under water" becomes "car under water"."""
        return ARTICLE.sub("", self.text, count=1).replace(PLACE, self.class_name or "")

    @property
    def own_words(self) -> str:
        """The text without the place of the class's name."""
        return self.text.replace(PLACE, " ")


KEYS = {"class": "class_name"} | {
    key: key for key in ("family", "text", "generator", "model", "prompt", "prompt_hash", "date")
}
REQUIRED = ("class", "family", "text", "generator")


def to_json(antibody: Antibody) -> dict[str, Any]:
    """By the keys of a bank's file; what is not known is left out."""
    values = {key: getattr(antibody, field) for key, field in KEYS.items()}
    return {key: value for key, value in values.items() if value is not None or key in REQUIRED}


def from_json(values: Mapping[str, Any]) -> Antibody:
    """The antibody, its text tidied.

    Raises:
        ValueError: a key is unknown or missing, or a value is no text, empty or too long.
    """
    unknown = sorted(set(values) - set(KEYS))
    missing = [key for key in REQUIRED if key not in values]
    if unknown or missing:
        raise ValueError(f"the unknown key {unknown[0]!r}" if unknown else f"no key {missing[0]!r}")
    fields: dict[str, Any] = {KEYS[key]: _text(key, value) for key, value in values.items()}
    return Antibody(**fields)


def _text(key: str, value: Any) -> str | None:
    if value is None and key not in ("family", "text", "generator"):
        return None
    if not isinstance(value, str):
        raise ValueError(f"no text at {key!r}")
    try:
        return clean(value, LONGEST_LABEL if key in ("family", "generator") else LONGEST)
    except ValueError as error:
        raise ValueError(f"{error} at {key!r}") from None
