"""A language model that writes text for us, behind an OpenAI-compatible endpoint: hosted, vLLM, Ollama, llama.cpp."""

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from configs.errors import FieldError
from configs.schema.checks import above, at_least


@dataclass(frozen=True)
class LanguageModelConfig:
    """Where it is, and how it is asked. A key is never part of a configuration, only the name of the environment
    variable that holds it; where a key seems to be written here, the error does not repeat it."""

    model: str = "gpt-4o"  # as the endpoint calls it
    base_url: str = "https://api.openai.com/v1"
    api_key_env: str | None = "OPENAI_API_KEY"  # the environment variable with the key; null: the server needs none
    temperature: float | None = None  # null: the endpoint's own
    seed: int | None = 0  # null: the endpoint's own
    max_answer_tokens: int = 8192  # of one answer, reasoning included
    max_tokens: int | None = 1_000_000  # of a run, questions and answers; what is cached counts as none
    concurrency: int = 4  # requests under way at a time
    requests_per_minute: float = 60.0
    timeout: float = 120.0  # seconds of silence
    retries: int = 5  # of a request that the endpoint fails
    repairs: int = 2  # of an answer that is not what was asked for
    cache: str = ".cache/language_model"
    input_price: float | None = None  # per million tokens, for the estimate
    output_price: float | None = None

    def __post_init__(self) -> None:
        at_least(1, max_answer_tokens=self.max_answer_tokens, max_tokens=self.max_tokens, concurrency=self.concurrency)
        at_least(0, retries=self.retries, repairs=self.repairs, temperature=self.temperature, seed=self.seed)
        at_least(0, input_price=self.input_price, output_price=self.output_price)
        above(0, requests_per_minute=self.requests_per_minute, timeout=self.timeout)
        if self.api_key_env is not None and not re.fullmatch(r"[A-Z_][A-Z0-9_]*", self.api_key_env):
            raise FieldError("api_key_env", "must be the name of an environment variable (A-Z 0-9 _), not a key")
        if not _plain_address(self.base_url):
            raise FieldError(
                "base_url", "must be http(s)://HOST/PATH without a user, a password or a query, as in http://host:1/v1"
            )


def _plain_address(address: str) -> bool:
    try:
        parts = urlsplit(address)
        return (
            parts.scheme in ("http", "https")
            and bool(parts.hostname)
            and not any((parts.username, parts.password, parts.query, parts.fragment))
        )
    except ValueError:
        return False
