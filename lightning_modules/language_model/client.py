"""Many questions to a language model."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from configs.schema.language_model import LanguageModelConfig
from lightning_modules.language_model.cache import Cache
from lightning_modules.language_model.conversation import Conversation, key
from lightning_modules.language_model.cost import MESSAGE_TOKENS, Budget, Estimate, price, tokens
from lightning_modules.language_model.endpoint import Endpoint
from lightning_modules.language_model.errors import LanguageModelError, Stopped
from lightning_modules.language_model.pace import Pace
from lightning_modules.language_model.question import BadAnswer, Question

GIVE_UP = 8  # bad answers before the first good one: no model for this, or no model at all

T = TypeVar("T")


class Client:
    """Asks side by side, in an even pace, each question once in a lifetime: usable answers are kept on disk.

    The budget is the client's: of all that it ever asks.
    """

    def __init__(self, config: LanguageModelConfig) -> None:
        self.config = config
        self.cache = Cache(Path(config.cache))
        self.budget = Budget(config.max_tokens)

    def estimate(self, questions: Sequence[Question[T]]) -> Estimate:
        """What `ask` would still send; it needs no key and asks nobody. Failed answers come on top.

        Raises:
            LanguageModelError: a prompt has a place that nothing fills.
        """
        known = self._known(questions)
        missing = [question for index, question in enumerate(questions) if index not in known]
        sent = sum(tokens(question.message()) + MESSAGE_TOKENS for question in missing)
        received = sum(question.answer_tokens for question in missing)
        return Estimate(len(missing), len(known), sent, received, price(self.config, sent, received))

    def ask(
        self, questions: Sequence[Question[T]], progress: Callable[[int], object] = lambda _: None
    ) -> list[T | BadAnswer]:
        """An answer per question, in order. `progress` is told how many more are there, cached ones first.

        An interrupt waits for the requests under way, whose answers are paid for and kept.

        Raises:
            LanguageModelError: the endpoint can't be used, or the budget is spent; says how many answers are kept.
        """
        known = self._known(questions)
        answers: dict[int, T | BadAnswer] = {**known}
        progress(len(answers))
        missing = [index for index in range(len(questions)) if index not in answers]
        try:
            if missing:
                self._ask(questions, missing, answers, progress)
        except LanguageModelError as error:
            raise LanguageModelError(
                f"{error}; {len(self._known(questions))} of {len(questions)} answers are kept in {self.cache.folder}, "
                "and the same command asks for the others"
            ) from None
        return [answers[index] for index in range(len(questions))]

    def ask_all(self, questions: Sequence[Question[T]], progress: Callable[[int], object] = lambda _: None) -> list[T]:
        """`ask`, where a single bad answer is one too many.

        Raises:
            LanguageModelError: as `ask` does, or an answer is not what was asked for; the others are kept.
        """
        answers = self.ask(questions, progress)
        bad = [answer.problem for answer in answers if isinstance(answer, BadAnswer)]
        if bad:
            raise LanguageModelError(
                f"{len(bad)} of {len(questions)} requests were not answered as asked ({bad[0]}), the others are kept "
                f"in {self.cache.folder}; ask again, with another model or a smaller batch"
            )
        return [answer for answer in answers if not isinstance(answer, BadAnswer)]

    def _ask(
        self,
        questions: Sequence[Question[T]],
        missing: Sequence[int],
        answers: dict[int, T | BadAnswer],
        progress: Callable[[int], object],
    ) -> None:
        pace = Pace(self.config.requests_per_minute)
        with Endpoint(self.config) as endpoint, _workers(self.config.concurrency, pace) as pool:
            conversation = Conversation(self.config, self.cache, self.budget, endpoint, pace)
            asked = {pool.submit(conversation.answer, questions[index]): index for index in missing}
            received = []
            for future in as_completed(asked):
                if isinstance(future.exception(), Stopped):
                    continue  # by another one's error, which comes
                answers[asked[future]] = answer = future.result()
                received.append(answer)
                progress(1)
                _check(received)

    def _known(self, questions: Sequence[Question[T]]) -> dict[int, T]:
        """Cached answers that can be read, by index."""
        known = {}
        for index, question in enumerate(questions):
            text = self.cache.get(key(question, self.config))
            if text is not None:
                with suppress(ValueError):
                    known[index] = question.read(text)
        return known


@contextmanager
def _workers(count: int, pace: Pace) -> Iterator[ThreadPoolExecutor]:
    """Threads; on leaving, those that wait are sent home, and those that talk may finish."""
    pool = ThreadPoolExecutor(count)
    try:
        yield pool
    finally:
        pace.stop()
        pool.shutdown(cancel_futures=True)


def _check(received: Sequence[object]) -> None:
    last = received[-1]
    if len(received) == GIVE_UP and isinstance(last, BadAnswer) and all(isinstance(one, BadAnswer) for one in received):
        raise LanguageModelError(
            f"none of the first {GIVE_UP} questions was answered as asked ({last.problem}); try another model"
        )
