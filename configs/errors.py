"""Errors that a person can put right. One sentence: what is wrong, where, what to do. The CLI prints it bare."""

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(Exception):
    """Anything a user can put right. The message names the file, key or sample, and the remedy."""


class ConfigError(UserError):
    """A configuration that can't be run: unknown key, wrong type, impossible combination."""


class FieldError(ConfigError):
    """One field of one section is out of range. `configs.compose` adds the section's place and who set the value."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field} {problem}")
        self.field = field
        self.problem = problem


class DataError(UserError):
    """Data that can't be read as its manifest says: missing, truncated, changed, out of range."""


class CheckpointError(UserError):
    """Weights that can't be loaded: another architecture, a pickle with code in it, a missing file."""


class TrainingError(UserError):
    """A run that can't go on: a loss that is not finite, a disk that is full. The last good state is kept."""


def closest(word: str, choices: Iterable[str]) -> str | None:
    """The choice that begins with the word (`eps` -> `eps_255`), or is spelt nearly like it; None where none is."""
    known = list(choices)
    begun = [choice for choice in known if word and choice.startswith(word)]
    return next(iter(begun or get_close_matches(word, known, n=1)), None)


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """The end of an error's sentence: the closest choice, or all of them where none is close."""
    known = list(choices)
    close = closest(word, known)
    if close:
        return f"did you mean '{close}'?"
    return f"choose from: {', '.join(known)}" if known else "there is nothing to choose from"
