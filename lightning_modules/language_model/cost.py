"""Tokens and money: what asking would cost, and no more than was allowed."""

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from configs.schema.language_model import LanguageModelConfig
from lightning_modules.language_model.errors import LanguageModelError

MESSAGE_TOKENS = 16  # roles and separators around a message


def tokens(text: str) -> int:
    """About how many tokens a text has: one for four bytes of UTF-8, as English has with the usual tokenizers."""
    return math.ceil(len(text.encode()) / 4)


@dataclass(frozen=True)
class Estimate:
    """What is still to be asked; `cost` is None where no price is configured."""

    requests: int
    cached: int
    input_tokens: int
    output_tokens: int
    cost: float | None

    def __str__(self) -> str:
        told = (
            f"{self.requests} requests ({self.cached} more are cached), "
            f"about {self.input_tokens:,} tokens in and {self.output_tokens:,} out"
        )
        return told if self.cost is None else f"{told}, about {self.cost:.2f} at the configured prices"


def price(config: LanguageModelConfig, input_tokens: int, output_tokens: int) -> float | None:
    """In the prices' currency; None where one of them is not configured."""
    if config.input_price is None or config.output_price is None:
        return None
    return (input_tokens * config.input_price + output_tokens * config.output_price) / 1e6


class Budget:
    """Tokens that may be spent. A request sets aside the most it may need before it is sent, so that requests under
    way together do not overspend; what it did not need goes back."""

    def __init__(self, limit: int | None) -> None:
        self.limit = math.inf if limit is None else limit
        self.spent = 0
        self._aside = 0
        self._changed = threading.Condition()

    @contextmanager
    def setting_aside(self, most: int) -> Iterator["Bill"]:
        """A bill to be filled in with what was used.

        Raises:
            LanguageModelError: so much is not left, even when all requests under way have given back theirs.
        """
        with self._changed:
            while self._aside and self.spent + self._aside + most > self.limit:
                self._changed.wait()
            if self.spent + most > self.limit:
                raise LanguageModelError(
                    f"the budget of {self.limit:,} tokens has {self.limit - self.spent:,} left, and the next request "
                    f"may take {most:,}; raise max_tokens, or lower max_answer_tokens"
                )
            self._aside += most
        bill = Bill()
        try:
            yield bill
        finally:
            with self._changed:
                self._aside -= most
                self.spent += bill.tokens
                self._changed.notify_all()


@dataclass
class Bill:
    """What one request used."""

    tokens: int = 0
