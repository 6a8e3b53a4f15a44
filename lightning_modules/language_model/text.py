"""Text from a language model is data: normalised, bounded, checked, never run and never part of a path."""

import unicodedata
from typing import Any, TypeVar

T = TypeVar("T")


def clean(text: str, limit: int) -> str:
    """One line in Unicode's NFC, without control, format and unassigned characters, single-spaced.

    Raises:
        ValueError: nothing is left of it, or more than `limit` characters.
    """
    spaced = " ".join(unicodedata.normalize("NFC", text).split())
    kept = " ".join("".join(each for each in spaced if unicodedata.category(each)[0] != "C").split())
    if not kept:
        raise ValueError("an empty text")
    if len(kept) > limit:
        raise ValueError(f"a text of {len(kept):,} characters, and {limit} are allowed")
    return kept


def shortened(text: str, limit: int = 200) -> str:
    """`clean` for people: a long text is cut, an empty one says so."""
    try:
        return clean(clean(text[: 8 * limit], 8 * limit)[:limit], limit)
    except ValueError:
        return "no text"


def read_json(text: str, schema: type[T]) -> T:
    """What the JSON says, which a code fence may surround, as `schema`: a pydantic model, TypedDict, dict[str, ...].

    Raises:
        ValueError: it is not JSON, or not of the schema; one sentence without the model's text.
    """
    from pydantic import TypeAdapter, ValidationError

    adapter: Any = TypeAdapter(schema)
    try:
        return adapter.validate_json(_unfenced(text), strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise ValueError(shortened(f"{first['msg']}{f' at {place}' if place else ''}")) from None


def _unfenced(text: str) -> str:
    inner = text.strip()
    if inner.startswith("```") and inner.endswith("```"):
        inner = inner[3:-3].partition("\n")[2]
    return inner
