"""Answers on disk, one JSON file each, so that a killed run continues and the next one costs nothing."""

import hashlib
import json
import os
import threading
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from lightning_modules.language_model.errors import LanguageModelError


@dataclass(frozen=True)
class Key:
    """What an answer depends on."""

    prompt_hash: str
    item: str
    model: str
    temperature: float | None
    seed: int | None

    @property
    def digest(self) -> str:
        """sha256, in hexadecimal."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


class Cache:
    """A folder; several runs may share it at once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(self, key: Key) -> str | None:
        """The answer's text; None where there is none, or a file that is not one."""
        try:
            entry = json.loads(self._path(key).read_text("utf-8"))
            answer = entry["answer"] if entry["key"] == asdict(key) else None
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return answer if isinstance(answer, str) else None

    def put(self, key: Key, answer: str, tokens: int) -> None:
        """Keeps an answer, and what it cost; a file is there whole or not at all.

        Raises:
            LanguageModelError: the disk is full or read-only.
        """
        now = datetime.now(UTC).isoformat(timespec="seconds")
        entry = {"key": asdict(key), "answer": answer, "tokens": tokens, "date": now}
        path = self._path(key)
        partial = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}.partial")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            partial.write_text(json.dumps(entry, indent=1) + "\n", "utf-8")
            partial.replace(path)
        except OSError as error:
            with suppress(OSError):
                partial.unlink()
            raise LanguageModelError(
                f"no answer can be kept in {self.folder} ({error.strerror}); make room, or set another cache folder"
            ) from None

    def _path(self, key: Key) -> Path:
        return self.folder / key.digest[:2] / f"{key.digest}.json"
