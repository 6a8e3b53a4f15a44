"""One question, until its answer is what was asked for."""

from dataclasses import dataclass
from typing import TypeVar

from configs.schema.language_model import LanguageModelConfig
from lightning_modules.language_model.cache import Cache, Key
from lightning_modules.language_model.cost import MESSAGE_TOKENS, Budget, tokens
from lightning_modules.language_model.endpoint import Completion, Endpoint
from lightning_modules.language_model.errors import LanguageModelError, Overloaded
from lightning_modules.language_model.pace import Pace, pause
from lightning_modules.language_model.question import BadAnswer, Question
from lightning_modules.language_model.text import shortened

LONGEST_REST = 600.0  # seconds; an endpoint that asks for more has a quota that fills up by the day

T = TypeVar("T")


def key(question: Question[T], config: LanguageModelConfig) -> Key:
    """What the answer depends on."""
    return Key(question.prompt.hash, question.item, config.model, config.temperature, config.seed)


@dataclass(frozen=True)
class Conversation:
    """Asks again where the endpoint fails, and where the answer does; keeps the answer. Threads share it."""

    config: LanguageModelConfig
    cache: Cache
    budget: Budget
    endpoint: Endpoint
    pace: Pace

    def answer(self, question: Question[T]) -> T | BadAnswer:
        """What the question's `read` makes of the answer, or what was wrong with the last of 1 + `repairs` answers.

        Raises:
            LanguageModelError: the endpoint does not answer, or the budget is spent.
            Stopped: somebody else got one of these.
        """
        try:
            return self._answer(question)
        except LanguageModelError:
            self.pace.stop()
            raise

    def _answer(self, question: Question[T]) -> T | BadAnswer:
        complaint = None
        for attempt in range(1 + self.config.repairs):
            seed = None if self.config.seed is None else self.config.seed + attempt
            completion = self._complete(question.message(complaint), seed)
            try:
                answer = self._read(question, completion)
            except ValueError as error:
                complaint = shortened(str(error))
                continue
            self.cache.put(key(question, self.config), completion.text, completion.tokens)
            return answer
        return BadAnswer(complaint or "")

    def _read(self, question: Question[T], completion: Completion) -> T:
        if completion.truncated:
            raise ValueError(f"cut off at {self.config.max_answer_tokens} tokens")
        return question.read(completion.text)

    def _complete(self, message: str, seed: int | None) -> Completion:
        most = tokens(message) + MESSAGE_TOKENS + self.config.max_answer_tokens
        failures = 0
        while True:
            try:
                with self.budget.setting_aside(most) as bill:
                    self.pace.wait()
                    completion = self.endpoint.complete(message, seed)
                    bill.tokens = completion.tokens
                return completion
            except Overloaded as error:
                failures += 1
                self._rest(error, failures)

    def _rest(self, error: Overloaded, failures: int) -> None:
        if failures > self.config.retries:
            times = f", {failures} times in a row" if failures > 1 else ""
            raise LanguageModelError(f"{self.config.base_url} {error}{times}") from None
        seconds = pause(failures, error.retry_after)
        if seconds > LONGEST_REST:
            raise LanguageModelError(f"{self.config.base_url} asks to wait {seconds:,.0f} s ({error})") from None
        self.pace.rest(seconds)
