"""A language model's endpoint on the loopback interface that behaves as it is told, well or badly."""

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from configs.schema.language_model import LanguageModelConfig
from tests.loopback import listening

KEY = "sk-secret-0123456789-abcdefghij"


@dataclass(frozen=True)
class Reply:
    """What goes over the wire, after `delay` seconds."""

    body: bytes
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0.0


@dataclass(frozen=True)
class Asked:
    """What came over the wire, and when. Names of headers are lower case."""

    body: dict[str, Any]
    headers: Mapping[str, str]
    path: str
    time: float

    @property
    def message(self) -> str:
        return str(self.body["messages"][-1]["content"])


Behaviour = Callable[[Asked], Reply]


def says(content: str, tokens: int = 100, finish_reason: str = "stop") -> Reply:
    """A well-formed chat completion."""
    message = {"role": "assistant", "content": content}
    completion = {
        "id": "1",
        "object": "chat.completion",
        "created": 0,
        "model": "fake",
        "choices": [{"index": 0, "message": message, "finish_reason": finish_reason}],
        "usage": {"prompt_tokens": tokens // 2, "completion_tokens": tokens - tokens // 2, "total_tokens": tokens},
    }
    return Reply(json.dumps(completion).encode())


def fails(status: int, message: str = "no", code: str | None = None, **headers: str) -> Reply:
    """An error as OpenAI words it; `retry_after="1"` is a header."""
    body = json.dumps({"error": {"message": message, "type": "error", "param": None, "code": code}})
    return Reply(body.encode(), status, {name.replace("_", "-"): value for name, value in headers.items()})


class FakeEndpoint:
    """Answers with `replies` in turn, the last one from then on; a function is asked for each request's reply."""

    def __init__(self, *replies: Reply | Behaviour) -> None:
        self.replies = list(replies)
        self.asked: list[Asked] = []
        self.under_way = 0
        self.most_under_way = 0
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.base_url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def config(self, **changes: Any) -> LanguageModelConfig:
        """That asks this endpoint, at once and no more than twice."""
        settings: dict[str, Any] = {
            "model": "fake",
            "base_url": self.base_url,
            "api_key_env": "FAKE_KEY",
            "requests_per_minute": 6e5,
            "timeout": 30.0,
            "retries": 1,
        }
        return LanguageModelConfig(**(settings | changes))

    @contextmanager
    def serving(self) -> Iterator["FakeEndpoint"]:
        """Listens while the block lasts."""
        with listening(self._server):
            yield self

    def _reply(self, asked: Asked) -> Reply:
        with self._lock:
            self.asked.append(asked)
            self.under_way += 1
            self.most_under_way = max(self.most_under_way, self.under_way)
            reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        reply = reply if isinstance(reply, Reply) else reply(asked)
        time.sleep(reply.delay)
        with self._lock:
            self.under_way -= 1
        return reply

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                headers = {name.lower(): value for name, value in self.headers.items()}
                reply = endpoint._reply(Asked(body, headers, self.path, time.monotonic()))
                self.send_response(reply.status)
                for name, value in {"Content-Type": "application/json", **reply.headers}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(reply.body)))
                self.end_headers()
                self.wfile.write(reply.body)

            def handle(self) -> None:
                with suppress(ConnectionError):  # the client lost patience
                    super().handle()

            def log_message(self, format: str, *args: Any) -> None:
                """Nothing on stderr."""

        return Handler
