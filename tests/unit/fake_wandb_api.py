"""What `wandb.Api` asks of a server, answered on loopback from folders: account, runs, artifacts, files."""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import wandb

from tests.loopback import JSONHandler, listening

WHEN = "2026-01-01T00:00:00"
USER = {"id": "1", "name": "me", "username": "me", "entity": "me", "email": "", "flags": "{}", "teams": {"edges": []}}


@dataclass
class Uploaded:
    """A run of the server; each version of each artifact is a folder."""

    run: str
    group: str = ""
    tags: tuple[str, ...] = ()
    state: str = "finished"
    artifacts: list[tuple[str, str, Path]] = field(default_factory=list)  # type, name:version, folder


class FakeWandb:
    """A project `me/project`."""

    def __init__(self, runs: list[Uploaded]) -> None:
        self.runs = runs
        self.asked: list[str] = []
        self.files: dict[str, bytes] = {}
        self.names: dict[str, list[str]] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    @contextmanager
    def serving(self) -> Iterator["FakeWandb"]:
        """Listens while the block lasts."""
        with listening(self._server):
            yield self

    def answer(self, query: str, variables: Mapping[str, Any]) -> dict[str, Any]:
        """To a GraphQL query."""
        asked = re.search(r"(?:query|mutation)\s+(\w+)", query)
        self.asked.append(asked[1] if asked else "")
        match self.asked[-1]:
            case "Viewer" | "GetDefaultEntity":
                return {"viewer": USER}
            case "Runs":
                nodes = [
                    self._run(run) for run in self.runs if _fits(run, json.loads(variables.get("filters") or "{}"))
                ]
                return {"project": {"internalId": "1", "runCount": len(nodes), "readOnly": False, "runs": _page(nodes)}}
            case "RunOutputArtifacts":
                (run,) = (run for run in self.runs if run.run == variables["run"])
                nodes = [self._artifact(*artifact) for artifact in run.artifacts]
                return {"project": {"run": {"artifacts": {"totalCount": len(nodes), **_page(nodes)}}}}
            case "FetchArtifactManifest":
                return {"artifact": {"currentManifest": {"file": {"directUrl": f"{self.url}/{variables['id']}"}}}}
            case "GetArtifactMembershipFileUrls":
                key = f"{variables['collection']}:{variables['alias']}"
                files = [{"__typename": "File", "name": name, "directUrl": f"{self.url}/{key}/{name}"}
                         for name in self.names[key]]  # fmt: skip
                collection = {"__typename": "ArtifactSequence", "artifactMembership": {"files": _page(files)}}
                return {"project": {"artifactCollection": collection}}
        return {}

    def _run(self, run: Uploaded) -> dict[str, Any]:
        empty = ("sweepName", "commit", "description", "notes", "historyKeys")
        return {
            "id": run.run, "name": run.run, "displayName": run.run, "projectId": "1", "tags": list(run.tags),
            "state": run.state, "config": "{}", "group": run.group, "jobType": "train", "readOnly": False,
            "createdAt": WHEN, "heartbeatAt": WHEN, "systemMetrics": "{}", "summaryMetrics": "{}",
            "historyLineCount": 0, "user": USER, **dict.fromkeys(empty),
        }  # fmt: skip

    def _artifact(self, kind: str, name: str, folder: Path) -> dict[str, Any]:
        sequence, _, version = name.partition(":v")
        built = wandb.Artifact(sequence, type=kind)
        built.add_dir(str(folder))
        manifest = built.manifest.to_manifest_json()
        self.files[f"/{built.digest}"] = json.dumps(manifest).encode()
        self.names[name] = list(manifest["contents"])
        self.files |= {f"/{name}/{one}": (folder / one).read_bytes() for one in self.names[name]}
        project = {"id": "1", "internalId": "1", "name": "project", "entity": {"name": "me"}}
        return {
            "__typename": "Artifact", "id": built.digest, "versionIndex": int(version),
            "artifactSequence": {"__typename": "ArtifactSequence", "name": sequence, "project": project},
            "artifactType": {"name": kind}, "description": None, "metadata": "{}", "ttlDurationSeconds": 0,
            "ttlIsInherited": False, "tags": [], "historyStep": None, "state": "COMMITTED", "size": 1,
            "digest": built.digest, "commitHash": None, "fileCount": len(manifest["contents"]), "createdAt": WHEN,
            "updatedAt": WHEN, "aliases": [],
        }  # fmt: skip

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        fake = self

        class Handler(JSONHandler):
            def do_POST(self) -> None:
                asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                data = fake.answer(asked["query"], asked.get("variables") or {})
                self.reply(json.dumps({"data": data}).encode())

            def do_GET(self) -> None:
                fake.asked.append(self.path)
                found = fake.files.get(self.path)
                self.reply(found or b"", 200 if found else 404)

        return Handler


def _page(nodes: list[dict[str, Any]]) -> dict[str, Any]:
    edges = [{"node": node, "cursor": str(place)} for place, node in enumerate(nodes)]
    return {"edges": edges, "pageInfo": {"endCursor": None, "hasNextPage": False}}


def _fits(run: Uploaded, wanted: Mapping[str, Any]) -> bool:
    """As the database does: `$in` holds of a list where it holds of one of its members."""
    has = {"group": [run.group], "tags": run.tags, "jobType": ["train"]}
    return all(
        set(condition["$in"]) & set(has[key]) for part in wanted.get("$and", []) for key, condition in part.items()
    )
