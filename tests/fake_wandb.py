"""A W&B server on the loopback interface that keeps what it is told, or fails as it is told to."""

import gzip
import json
import re
import socket
import struct
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

from tests.loopback import JSONHandler, listening

KEY = "0123456789abcdef" * 2 + "01234567"
Behaviour = Literal["works", "hangs", "resets", "answers 500"]


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that are killed hang up."""


class FakeWandb:
    """Works until `behaviour` says otherwise.

    runs       id -> what was upserted of it, newest last.
    history    id -> rows of its history by their place in the file.
    artifacts  name -> what was asked for the newest version, its `type`, and its `files` by name.
    used       names of the artifacts that a run was made from.
    files      path -> what was uploaded there.
    """

    def __init__(self) -> None:
        self.behaviour: Behaviour = "works"
        self.runs: dict[str, dict[str, Any]] = {}
        self.history: dict[str, dict[int, dict[str, Any]]] = {}
        self.artifacts: dict[str, dict[str, Any]] = {}
        self.used: list[str] = []
        self.files: dict[str, bytes] = {}
        self.tags: dict[str, list[str]] = {}
        self._closed = threading.Event()
        self._server = _Server(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    @property
    def environment(self) -> dict[str, str]:
        """That makes wandb take this for its server."""
        return {"WANDB_BASE_URL": self.url, "WANDB_API_KEY": KEY, "WANDB_ERROR_REPORTING": "false"}

    @contextmanager
    def serving(self) -> Iterator["FakeWandb"]:
        """Listens while the block lasts."""
        with listening(self._server):
            try:
                yield self
            finally:
                self._closed.set()

    def answer(self, method: str, path: str, body: bytes) -> Mapping[str, Any]:
        """What a server that works says."""
        if path == "/graphql":
            asked = json.loads(body)
            named = re.search(r"(?:query|mutation)\s+(\w+)", asked["query"])
            known = getattr(self, f"_{named[1]}", None) if named else None
            return {"data": known(asked.get("variables") or {}) if known else {}}
        if path.endswith("/file_stream"):
            self._stream(path.split("/")[-2], json.loads(body))
        elif path.startswith("/artifacts/"):
            _, _, name, file = path.split("/", 3)
            self.artifacts[name]["files"][file] = body
        elif method == "PUT":
            self.files[path] = body
        return {}

    def _RunResumeStatus(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        known = self._bucket(asked["name"]) if asked["name"] in self.runs else None
        return {"model": {**self._project(), "bucket": known}}

    def _Run(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        return {"project": {"run": {**self._bucket(asked["name"]), "projectId": "1", "state": "running", "user": {}}}}

    def _UpsertBucket(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        identity = asked["name"] or asked["id"]
        inserted = identity not in self.runs
        run = self.runs.setdefault(identity, {})
        run.update({name: value for name, value in asked.items() if value is not None})
        if asked.get("tags") is not None:
            self.tags[identity] = list(asked["tags"])
        return {"upsertBucket": {"bucket": self._bucket(identity), "inserted": inserted}}

    def _Viewer(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        user = {"id": "1", "username": "somebody", "email": "", "admin": False, "flags": "{}", "entity": "team"}
        return {"viewer": {**user, "teams": {"edges": [{"node": {"name": "team"}}]}}}

    def _CreateRunFiles(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        files = [{"name": name, "uploadUrl": f"{self.url}/storage/{asked['run']}/{name}"} for name in asked["files"]]
        return {"createRunFiles": {"runID": "1", "uploadHeaders": [], "files": files}}

    _GetDefaultEntity = _Viewer

    def _ArtifactType(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        return {"project": None}

    def _CreateArtifact(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        told = dict(asked["input"])
        name = told["artifactCollectionName"]
        self.artifacts[name] = told | {"type": told["artifactTypeName"], "files": {}}
        return {"createArtifact": {"artifact": {"id": name, "state": "PENDING", "artifactSequence": None}}}

    def _CreateArtifactManifest(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        return {"createArtifactManifest": {"artifactManifest": self._manifest(asked["artifactID"])}}

    def _UpdateArtifactManifest(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        return {"updateArtifactManifest": {"artifactManifest": self._manifest(asked["artifactManifestID"])}}

    def _CreateArtifactFiles(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        nodes = [
            {
                "storagePath": f"{each['artifactID']}/{each['name']}", "uploadHeaders": [], "uploadMultipartUrls": None,
                "uploadUrl": f"{self.url}/artifacts/{each['artifactID']}/{each['name']}",
                "artifact": {"id": each["artifactID"]},
            }
            for each in asked["input"]["artifactFiles"]
        ]  # fmt: skip
        return {"createArtifactFiles": {"files": {"edges": [{"node": node} for node in nodes]}}}

    def _CommitArtifact(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        name = asked["artifactID"]
        return {"commitArtifact": {"artifact": {"id": name, "digest": self.artifacts[name]["digest"]}}}

    def _UseArtifact(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        self.used.append(asked["input"]["artifactID"])
        return {"useArtifact": {"artifact": {"id": asked["input"]["artifactID"]}}}

    def _manifest(self, name: str) -> dict[str, Any]:
        file = {"id": name, "uploadUrl": f"{self.url}/manifests/{name}", "uploadHeaders": []}
        return {"id": name, "file": file}

    def _bucket(self, identity: str) -> dict[str, Any]:
        run, rows = self.runs[identity], self.history.get(identity, {})
        tail = json.dumps([json.dumps(rows[max(rows)])] if rows else [])
        return {
            "id": identity, "name": identity, "displayName": run.get("displayName"), "description": None,
            "config": run.get("config", "{}"), "summaryMetrics": run.get("summaryMetrics", "{}"), "sweepName": None,
            "project": self._project(), "historyLineCount": len(rows), "logLineCount": 0, "eventsLineCount": 0,
            "historyTail": tail, "eventsTail": "[]", "tags": self.tags.get(identity, []), "notes": None,
            "wandbConfig": "{}",
        }  # fmt: skip

    def _project(self) -> dict[str, Any]:
        return {"id": "1", "name": "immunoclip", "entity": {"id": "1", "name": "team"}}

    def _stream(self, identity: str, body: Mapping[str, Any]) -> None:
        sent = body.get("files", {}).get("wandb-history.jsonl")
        rows = self.history.setdefault(identity, {})
        for place, line in enumerate(sent["content"] if sent else (), start=sent["offset"] if sent else 0):
            rows[place] = json.loads(line)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        fake = self

        class Handler(JSONHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if fake.behaviour == "hangs":
                    fake._closed.wait()
                elif fake.behaviour == "resets":
                    self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    self.connection.close()
                    self.close_connection = True
                    return
                failing = fake.behaviour == "answers 500"
                body = gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body
                told = {} if failing else fake.answer(self.command, self.path, body)
                self.reply(json.dumps(told).encode(), 500 if failing else 200)

            do_GET = do_PUT = do_POST

        return Handler
