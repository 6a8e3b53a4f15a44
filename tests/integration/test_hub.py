"""Pushing to a hub on loopback by huggingface_hub's client: what arrives, and what a person reads where it fails."""

import base64
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest

from configs.errors import ConfigError
from experiments.models.hub import HubError, push

TOKEN = "hf_" + "x" * 34


class FakeHub:
    """Takes what the client sends, and answers as the hub does; refuses with 403 where it is told to."""

    def __init__(self, refuse: bool = False) -> None:
        self.refuse = refuse
        self.created: dict[str, Any] = {}
        self.files: dict[str, bytes] = {}
        self.tokens: set[str | None] = set()

    def answer(self, path: str, body: bytes) -> dict[str, Any]:
        if path == "/api/repos/create":
            self.created = json.loads(body)
            return {"url": "http://127.0.0.1/me/robust", "name": "me/robust"}
        if "/preupload/" in path:
            files = json.loads(body)["files"]
            return {"files": [{"path": each["path"], "uploadMode": "regular", "shouldIgnore": False} for each in files]}
        if "/commit/" in path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            return {"commitUrl": "http://127.0.0.1/me/robust/commit/1", "commitOid": "1" * 40, "success": True}
        return {"warnings": [], "errors": []}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., FakeHub]]:
    servers: list[ThreadingHTTPServer] = []

    def start(refuse: bool = False) -> FakeHub:
        fake = FakeHub(refuse)

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                fake.tokens.add(self.headers.get("authorization"))
                content = json.dumps(
                    {"error": f"no rights for {TOKEN}"} if fake.refuse else fake.answer(self.path, body)
                )
                self.send_response(403 if fake.refuse else 200)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content.encode())

            do_GET = do_POST

            def log_message(self, *_: object) -> None:
                return

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        return fake

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "README.md").write_text("---\nlibrary_name: open_clip\n---\n\n# A model\n")
    (tmp_path / "open_clip_model.safetensors").write_bytes(bytes(range(256)) * 4)
    return tmp_path


def test_everything_in_the_folder_arrives_in_a_private_repository(
    hub: Callable[..., FakeHub], folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    fake = hub()
    assert push("me/robust", lambda: folder) == "http://127.0.0.1/me/robust/commit/1"
    assert fake.files == {path.name: path.read_bytes() for path in folder.iterdir()}
    assert fake.created["name"] == "robust"
    assert fake.created["organization"] == "me"
    assert fake.created.get("private") or fake.created.get("visibility") == "private"
    assert fake.tokens == {f"Bearer {TOKEN}"}
    assert TOKEN not in "".join(capfd.readouterr())


def test_a_refusal_is_one_sentence_without_the_token(hub: Callable[..., FakeHub], folder: Path) -> None:
    hub(refuse=True)
    with pytest.raises(HubError, match=r"hf-hub:me/robust was not written .*token's rights") as caught:
        push("me/robust", lambda: folder)
    assert TOKEN not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_token_is_told_before_anything_is_made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "none"))

    def made() -> Path:
        raise AssertionError("the model was written for nothing")

    with pytest.raises(ConfigError, match="HF_TOKEN"):
        push("me/robust", made)


@pytest.mark.parametrize("name", ["robust", "me/", "/robust", "me/a/b", "me/ro bust"])
def test_names_that_can_be_no_repository(name: str, folder: Path) -> None:
    with pytest.raises(ConfigError, match="names no repository"):
        push(name, lambda: folder)
