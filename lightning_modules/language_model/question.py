"""What a language model is asked: a versioned prompt and what fills it."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from string import Template
from typing import Generic, TypeVar

from lightning_modules.language_model.errors import LanguageModelError

T = TypeVar("T")


@dataclass(frozen=True)
class Prompt:
    """A text with places, `$name`. `name` says the version: superclasses_v1."""

    name: str
    text: str

    @classmethod
    def read(cls, path: Path) -> "Prompt":
        """The prompt of a file, which gives it its name.

        Raises:
            LanguageModelError: there is no such file, or it isn't UTF-8.
        """
        try:
            return cls(path.stem, path.read_text("utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise LanguageModelError(
                f"the prompt {path} can't be read ({error}); correct its path or the file"
            ) from None

    @property
    def hash(self) -> str:
        """16 hexadecimal digits over the text."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:16]

    def fill(self, values: Mapping[str, str]) -> str:
        """The text with every place filled. What fills a place is not looked into for places.

        Raises:
            LanguageModelError: a place that nothing fills, or a $ that is none.
        """
        try:
            return Template(self.text).substitute(values)
        except (KeyError, ValueError) as error:
            known = ", ".join(f"${name}" for name in values)
            raise LanguageModelError(
                f"the prompt {self.name!r} has a place that nothing fills ({error}); it may hold {known}, and $$ for $"
            ) from None


@dataclass(frozen=True)
class Question(Generic[T]):
    """One request.

    values         what fills the prompt.
    read           the answer's text -> what is wanted; a ValueError's text tells the model what was wrong.
    answer_tokens  about how long the answer will be.
    """

    prompt: Prompt
    values: Mapping[str, str]
    read: Callable[[str], T] = field(compare=False)
    answer_tokens: int

    @property
    def item(self) -> str:
        """The values in a form of which there is one."""
        return json.dumps(dict(self.values), sort_keys=True, ensure_ascii=True)

    def message(self, complaint: str | None = None) -> str:
        """What is sent; with what was wrong with the answer before."""
        text = self.prompt.fill(self.values)
        if complaint is None:
            return text
        return (
            f"{text}\n\nAn earlier answer could not be used: {complaint}. Answer with the complete JSON object alone."
        )


@dataclass(frozen=True)
class BadAnswer:
    """In the place of an answer: none could be used, and what was wrong with the last one."""

    problem: str
