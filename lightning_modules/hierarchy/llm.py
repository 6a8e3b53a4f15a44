"""Superclasses that a language model names."""

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from configs.schema.hierarchy import LLMTree
from lightning_modules.hierarchy.outline import some
from lightning_modules.language_model import Client, Prompt, Question, clean, read_json

PROMPTS = Path(__file__).parent / "prompts"
LONGEST_NAME = 60  # characters
NAME_TOKENS = 6  # of a name with its quotes and comma

Superclasses = dict[str, tuple[str, ...]]  # class -> its superclasses, nearest first


def prompt(source: LLMTree) -> Prompt:
    """The question's text."""
    return Prompt.read(PROMPTS / f"superclasses_{source.prompt}.txt")


def questions(class_names: Sequence[str], source: LLMTree) -> list[Question[Superclasses]]:
    """A question for each batch of classes. They ask for all levels of a class at once."""
    text = prompt(source)
    batches = [class_names[start : start + source.batch] for start in range(0, len(class_names), source.batch)]
    return [
        Question(
            text,
            {"classes": json.dumps(list(batch), ensure_ascii=False), "levels": str(source.levels)},
            partial(read_answer, class_names=batch, levels=source.levels),
            answer_tokens=NAME_TOKENS * len(batch) * (1 + source.levels),
        )
        for batch in batches
    ]


def ask(
    client: Client, asked: Sequence[Question[Superclasses]], progress: Callable[[int], object] = lambda _: None
) -> Superclasses:
    """What was answered, class by class in order; not a tree yet, see `reconcile`.

    Raises:
        LanguageModelError: the endpoint can't be used, the budget is spent, or an answer is not what was asked for.
    """
    return {name: above for answer in client.ask_all(asked, progress) for name, above in answer.items()}


def read_answer(text: str, class_names: Sequence[str], levels: int) -> Superclasses:
    """The superclasses of every class, in the order of `class_names`; what it says of other classes is left out.

    Raises:
        ValueError: it is not JSON of that form, misses a class, or names too few or too long superclasses, a class as
            its own superclass, or one twice in a row of them.
    """
    said = {name.casefold(): above for name, above in read_json(text, dict[str, list[str]]).items()}
    missing = [name for name in class_names if name.casefold() not in said]
    if missing:
        raise ValueError(f"the answer misses {some(missing)}")
    return {name: _superclasses(name, said[name.casefold()], levels) for name in class_names}


def _superclasses(name: str, said: Sequence[str], levels: int) -> tuple[str, ...]:
    if len(said) != levels:
        raise ValueError(f"{name!r} has {len(said)} superclasses instead of {levels}")
    try:
        above = tuple(clean(each, LONGEST_NAME) for each in said)
    except ValueError as error:
        raise ValueError(f"a superclass of {name!r} is {error}") from None
    if len({each.casefold() for each in (name, *above)}) <= levels:
        raise ValueError(f"the superclasses of {name!r} name it, or one of them twice")
    return above
