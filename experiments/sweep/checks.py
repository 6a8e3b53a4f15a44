"""Checks of a sweep's file: a wrong value is one sentence that names the file, the key in it, and what to do."""

from collections.abc import Iterable
from typing import Any

from configs.errors import ConfigError, did_you_mean


def mapping(origin: str, key: str, given: Any) -> dict[str, Any]:
    """A section. Raises ConfigError where it is anything else."""
    if not isinstance(given, dict):
        raise ConfigError(f"{key} in {origin} must be a section with keys below it, got {given!r}")
    return given


def texts(origin: str, key: str, given: Any) -> tuple[str, ...]:
    """A list of text. Raises ConfigError where it is anything else."""
    if not isinstance(given, list) or not all(isinstance(one, str) for one in given):
        raise ConfigError(f"{key} in {origin} must be text, got {given!r}")
    return tuple(given)


def whole(origin: str, key: str, given: Any, at_least: int = 1) -> int:
    """A whole number. Raises ConfigError where it is anything else, or too small."""
    if not isinstance(given, int) or isinstance(given, bool) or given < at_least:
        raise ConfigError(f"{key} in {origin} must be a whole number, {at_least} at least, got {given!r}")
    return given


def one_of(origin: str, key: str, given: Any, choices: tuple[str, ...]) -> str:
    """One of the choices. Raises ConfigError where it is none."""
    if given not in choices:
        raise ConfigError(f"{key} in {origin} is {given!r}; {did_you_mean(str(given), choices)}")
    return str(given)


def known(origin: str, section: str, given: Iterable[str], choices: Iterable[str]) -> None:
    """Raises ConfigError for a key that is none of the choices."""
    for key in given:
        if key not in choices:
            raise ConfigError(f"unknown key {section}{key} in {origin}; {did_you_mean(key, choices)}")
