"""One request to an OpenAI-compatible endpoint: what it says, or why it does not."""

import os
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any

from configs.schema.language_model import LanguageModelConfig
from lightning_modules.language_model.cost import tokens
from lightning_modules.language_model.errors import LanguageModelError, Overloaded
from lightning_modules.language_model.pace import retry_after
from lightning_modules.language_model.text import shortened

if TYPE_CHECKING:
    from openai import APIStatusError

NO_KEY = "none"  # the client insists on one; a server that needs none ignores it
SHORTEST_KEY = 8  # anything shorter is no secret, and may be a word of an answer
PASSING = (408, 409, 429)  # statuses that the next request may not meet, as may none from 500 on


@dataclass(frozen=True)
class Completion:
    """An answer. `truncated`: it is longer than allowed; `tokens`: of question and answer."""

    text: str
    truncated: bool
    tokens: int


class Endpoint:
    """Chat completions of one model, as JSON. Threads may share it. The key leaves it in the request's header alone.

    Raises:
        LanguageModelError: the `openai` package is not installed, or the environment has no key.
    """

    def __init__(self, config: LanguageModelConfig) -> None:
        try:
            from openai import OpenAI
        except ImportError:
            raise LanguageModelError(
                "the package openai is not installed; get it with: pip install 'immunoclip[llm]'"
            ) from None
        self.config = config
        self._key = _key(config)
        self._client = OpenAI(base_url=config.base_url, api_key=self._key, timeout=config.timeout, max_retries=0)
        self._options: dict[str, Any] = {
            "max_tokens": config.max_answer_tokens,
            "response_format": {"type": "json_object"},
        }
        if config.temperature is not None:
            self._options["temperature"] = config.temperature

    def __enter__(self) -> "Endpoint":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._client.close()

    def complete(self, message: str, seed: int | None) -> Completion:
        """The answer to one message.

        Raises:
            Overloaded: it may answer later: too many requests, a fault of its own, silence, nobody there.
            LanguageModelError: it never will: wrong key, no such model, nothing paid for.
        """
        import openai

        options = dict(self._options)
        if seed is not None:
            options["seed"] = seed
        try:
            return self._completion(self._create(message, options), message)
        except openai.APITimeoutError:
            raise Overloaded(f"said nothing for {self.config.timeout:g} s") from None
        except openai.APIConnectionError as error:
            raise Overloaded(f"can't be reached ({self._told(error.__cause__ or error)})") from None
        except openai.APIStatusError as error:
            if not self._does_without(options, error):
                raise self._judged(error) from None
        except (openai.OpenAIError, AttributeError, IndexError, TypeError, ValueError):
            raise Overloaded("sends something else than chat completions (does the address lack /v1?)") from None
        return self.complete(message, seed)

    def _create(self, message: str, options: dict[str, Any]) -> Any:
        messages: list[Any] = [{"role": "user", "content": message}]
        return self._client.chat.completions.create(model=self.config.model, messages=messages, **options)

    def _completion(self, reply: Any, message: str) -> Completion:
        choice = reply.choices[0]
        text = str(choice.message.content or "")
        if len(self._key) >= SHORTEST_KEY:
            text = text.replace(self._key, "***")
        used = getattr(reply.usage, "total_tokens", None)
        return Completion(
            text,
            truncated=choice.finish_reason == "length",
            tokens=used if isinstance(used, int) and used > 0 else tokens(message) + tokens(text),
        )

    def _does_without(self, options: dict[str, Any], error: "APIStatusError") -> bool:
        """Whether it refused an option that not every server has; from now on it is asked without it."""
        said = str(error) if error.status_code in (400, 422) else ""
        if "max_completion_tokens" in said and "max_tokens" in options:
            self._options["max_completion_tokens"] = options["max_tokens"]
            self._options.pop("max_tokens", None)
            return True
        if "response_format" in said and "response_format" in options:
            self._options.pop("response_format", None)
            return True
        return False

    def _judged(self, error: "APIStatusError") -> Exception:
        status, address = error.status_code, self.config.base_url
        if error.code == "insufficient_quota":
            return LanguageModelError(f"{address} has no quota left for this key; raise it there, or use another key")
        if status in PASSING or status >= 500:
            return Overloaded(f"answers with status {status}", retry_after(error.response.headers))
        if status in (401, 403):
            source = f"the key in {self.config.api_key_env}" if self.config.api_key_env else "a request without a key"
            return LanguageModelError(f"{address} refuses {source} (status {status}); correct api_key_env or the key")
        remedy = "correct base_url or model" if status == 404 else "correct the settings"
        said = self._told(error)
        return LanguageModelError(
            f"{address} refuses the request to {self.config.model} (status {status}: {said}); {remedy}"
        )

    def _told(self, error: BaseException) -> str:
        return shortened(str(error).replace(self._key, "***"))


def _key(config: LanguageModelConfig) -> str:
    if config.api_key_env is None:
        return NO_KEY
    key = os.environ.get(config.api_key_env, "").strip()
    if not key:
        raise LanguageModelError(
            f"the environment variable {config.api_key_env} holds no key for {config.base_url}; export it, or set "
            "api_key_env=null where the server needs none"
        )
    return key
