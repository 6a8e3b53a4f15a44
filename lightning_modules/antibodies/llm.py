"""Antibodies that a language model writes, a family and some classes at a time."""

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import partial
from pathlib import Path

from configs.schema.antibodies import LLMBank
from lightning_modules.antibodies.antibody import LONGEST, PLACE, Antibody
from lightning_modules.antibodies.words import words
from lightning_modules.hierarchy.outline import some
from lightning_modules.language_model import Client, Prompt, Question, clean, read_json

PROMPTS = Path(__file__).parent / "prompts"
PLACED = {
    "impossible_context": True,
    "style": True,
    "look_alike": False,
    "part_whole": None,
}  # {c}: must, must not, may
TEXT_TOKENS = 12  # of a text with its quotes and comma
GENERATOR = "llm"


@dataclass(frozen=True)
class Answer:
    """What a model wrote for some classes: class -> texts, and why how many texts were left out."""

    family: str
    texts: Mapping[str, tuple[str, ...]]
    dropped: Mapping[str, int] = field(default_factory=dict)


def prompts(source: LLMBank) -> dict[str, tuple[Prompt, int]]:
    """Family -> its question's text, and how many texts per class it asks for; those that are asked for any."""
    counts = {
        "look_alike": source.look_alikes,
        "impossible_context": source.contexts,
        "part_whole": source.parts,
        "style": source.styles,
    }
    return {
        family: (Prompt.read(PROMPTS / f"{family}_{source.prompt}.txt"), count)
        for family, count in counts.items()
        if count
    }


def questions(class_names: Sequence[str], source: LLMBank) -> list[Question[Answer]]:
    """A question for each family and batch of classes."""
    batches = [class_names[start : start + source.batch] for start in range(0, len(class_names), source.batch)]
    return [
        Question(
            text,
            {"classes": json.dumps(list(batch), ensure_ascii=False), "count": str(count)},
            partial(read_answer, class_names=batch, family=family, count=count),
            answer_tokens=TEXT_TOKENS * len(batch) * (count + 1),
        )
        for family, (text, count) in prompts(source).items()
        for batch in batches
    ]


def ask(
    client: Client,
    class_names: Sequence[str],
    source: LLMBank,
    progress: Callable[[int], object] = lambda _: None,
) -> tuple[list[Antibody], dict[str, int]]:
    """Antibodies, class by class and each class's families in turn, and why how many texts were left out.

    Raises:
        LanguageModelError: the endpoint can't be used, the budget is spent, or an answer is not what was asked for.
    """
    answers = client.ask_all(questions(class_names, source), progress)
    dropped: Counter[str] = Counter()
    for answer in answers:
        dropped.update(answer.dropped)
    asked = prompts(source)
    antibodies = [
        _antibody(name, answer.family, text, source, asked[answer.family][0])
        for name in class_names
        for answer in answers
        for text in answer.texts.get(name, ())
    ]
    return antibodies, dict(dropped)


def read_answer(text: str, class_names: Sequence[str], family: str, count: int) -> Answer:
    """At most `count` texts of every class; what it says of other classes is left out. A class's name where {c} belongs
    is replaced; a text that can't be repaired is left out and counted.

    Raises:
        ValueError: it is not JSON of that form, misses a class, or leaves one without a usable text.
    """
    said = {name.casefold(): texts for name, texts in read_json(text, dict[str, list[str]]).items()}
    missing = [name for name in class_names if name.casefold() not in said]
    if missing:
        raise ValueError(f"the answer misses {some(missing)}")
    dropped: Counter[str] = Counter()
    usable = {name: _usable(name, said[name.casefold()], family, count, dropped) for name in class_names}
    without = [name for name, texts in usable.items() if not texts]
    if without:
        reasons = ", ".join(sorted(dropped)) or "the list is empty"
        raise ValueError(f"no text of {some(without)} can be used ({reasons})")
    return Answer(family, usable, dict(dropped))


def _usable(name: str, said: Sequence[str], family: str, count: int, dropped: Counter[str]) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for text in said:
        try:
            found[_repaired(name, text, PLACED[family])] = None
        except ValueError as error:
            dropped[str(error)] += 1
    return tuple(found)[:count]


def _repaired(name: str, text: str, placed: bool | None) -> str:
    """The text, tidied; where {c} may stand, in place of the class's name too.

    Raises:
        ValueError: why it can't be used, in the same words for every text.
    """
    try:
        tidy = clean(text, LONGEST)
    except ValueError:
        raise ValueError("empty" if not text.strip() else "too long, or nothing but signs") from None
    if placed is not False and PLACE not in tidy:
        tidy = re.sub(rf"\b{re.escape(name)}\b", lambda _: PLACE, tidy, count=1, flags=re.IGNORECASE)
    rest = tidy.replace(PLACE, " ")
    if "{" in rest or "}" in rest or tidy.count(PLACE) > 1 or (placed is False and PLACE in tidy):
        raise ValueError("braces out of place")
    if placed and PLACE not in tidy:
        raise ValueError("no {c}")
    if _holds(words(rest), words(name)):
        raise ValueError("names the class itself")
    return tidy


def _holds(text: Sequence[str], phrase: Sequence[str]) -> bool:
    return any(text[start : start + len(phrase)] == phrase for start in range(len(text)))


def _antibody(name: str, family: str, text: str, source: LLMBank, prompt: Prompt) -> Antibody:
    return Antibody(
        name, family, text, GENERATOR, source.endpoint.model, prompt.name, prompt.hash, date.today().isoformat()
    )
