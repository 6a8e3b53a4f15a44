"""What may go wrong between a language model and us."""

from configs.errors import UserError


class LanguageModelError(UserError):
    """The endpoint can't be used, or the budget is spent. Answers until then are kept."""


class Overloaded(Exception):
    """The endpoint failed a request, and may not fail the next one.

    retry_after  seconds that it asked for; None where it did not.
    """

    def __init__(self, reason: str, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class Stopped(Exception):
    """Somebody else ended the run; nobody sees this."""
