"""The engines with real trials: a job of submitit's, and agents of a W&B server that lives in this test."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from experiments.cli import main
from experiments.sweep import assign
from experiments.sweep.ledger import Ledger
from experiments.sweep.server import _registered
from tests.integration.test_resume import TRAINER
from tests.integration.test_sweep import EVALUATION, sweep_file

Experiment = Callable[..., Path]

pytestmark = pytest.mark.slow


class Server(ThreadingHTTPServer):
    """As much of W&B as sweeps need: it keeps one sweep, and deals out its only trial."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.sweep: dict[str, Any] = {}
        self.registered = 0
        self.dealt = False
        self.states: list[dict[str, bool]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def answer(self, query: str, variables: dict[str, Any]) -> dict[str, Any] | None:
        """None: what this server does not know."""
        entity = {"id": "1", "name": "me"}
        if "mutation UpsertSweep" in query:
            self.registered += 1
            self.sweep = yaml.safe_load(variables["config"])
            project = {"id": "1", "name": variables["projectName"], "entity": entity}
            return {"upsertSweep": {"sweep": {"name": "abcd1234", "project": project}, "configValidationWarnings": []}}
        if "query SweepWithRuns" in query:
            sweep = {"id": "1", "name": "abcd1234", "config": yaml.safe_dump(self.sweep), "runs": {"edges": []}}
            return {"project": {"sweep": sweep}}
        if "mutation CreateAgent" in query:
            return {"createAgent": {"agent": {"id": "agent"}}}
        if "mutation Heartbeat" in query:
            self.states.append(json.loads(variables["runState"]))
            return {"agentHeartbeat": {"agent": {"id": "agent"}, "commands": json.dumps(self.commands())}}
        if "viewer" in query.lower():
            viewer = {"id": "1", "entity": "me", "username": "me", "email": "me@me", "admin": False, "flags": "{}"}
            return {"viewer": viewer | {"teams": {"edges": []}, "apiKeys": {"edges": []}}}
        return None

    def commands(self) -> list[dict[str, Any]]:
        if self.dealt:
            return [] if self.states[-1] else [{"type": "exit"}]
        self.dealt = True
        args = {key: {"value": one.get("value", one.get("values", [None])[0])} for key, one in self._parameters()}
        return [{"type": "run", "run_id": "run1", "program": self.sweep["program"], "args": args}]

    def _parameters(self) -> list[tuple[str, dict[str, Any]]]:
        return list(self.sweep["parameters"].items())


class Handler(BaseHTTPRequestHandler):
    """GraphQL over HTTP."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert isinstance(self.server, Server)
        data = self.server.answer(asked["query"], asked.get("variables") or {})
        body = {"data": data} if data is not None else {"errors": [{"message": "unknown"}]}
        content = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


@contextmanager
def serving(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server, and an environment in which wandb talks to it."""
    server = Server()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("WANDB_BASE_URL", server.url)
    monkeypatch.setenv("WANDB_API_KEY", "0123456789" * 4)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def states(folder: Path) -> list[str]:
    return [event.state for event in Ledger(folder).events()]


def test_agents_of_a_server_train_and_measure_and_what_they_did_counts(
    experiment_file: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    experiment = experiment_file(trainer=TRAINER | {"steps": 3}, evaluation=EVALUATION)
    objective = {"kind": "trades", "weight": 2.0}
    parameters = {
        "seed": {"value": 1},
        "module.objective": {"values": [objective]},
        "model.pretrained": {"value": None},
    }
    sweep = sweep_file(tmp_path, program=str(experiment), parameters=parameters)
    folder = tmp_path / "outputs" / "sweeps" / "mine"
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    with serving(monkeypatch) as server:
        code = main(["sweep", str(sweep), "--engine", "wandb"])
        out, told = capfd.readouterr()
        assert code == 0, told
        assert "me/immunoclip/abcd1234" in told
        assert any(state for state in server.states)
        assert _registered(assign(str(sweep), "wandb", 1, [])) == "me/immunoclip/abcd1234"  # at the next start
        assert server.registered == 1
    assert states(folder) == ["running", "finished"]
    assert "accuracy/pgd/leaf" in out
    assert main(["sweep", str(sweep)]) == 0
    assert states(folder) == ["running", "finished"]
    assert "1 of 1 trials are finished already" in capfd.readouterr().err
    (run,) = (tmp_path / "outputs" / "tiny").iterdir()
    assert "kind: trades" in (run / "config.yaml").read_text()


def test_a_server_that_is_not_there_is_one_sentence(
    experiment_file: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    sweep = sweep_file(tmp_path, program=str(experiment_file()), parameters={"seed": {"values": [1, 2]}})
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert main(["sweep", str(sweep), "--engine", "wandb"]) == 2
    told = capfd.readouterr().err
    assert told.count("\n") == 1
    assert "run 'wandb login'" in told


def test_a_job_trains_and_measures(
    experiment_file: Experiment, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    experiment = experiment_file(trainer=TRAINER | {"steps": 3}, evaluation=EVALUATION)
    sweep = sweep_file(tmp_path, program=str(experiment), parameters={"seed": {"values": [1, 2]}})
    assert main(["sweep", str(sweep), "--engine", "submitit", "slurm.kind=local", "seed=2"]) == 0
    out, _ = capfd.readouterr()
    assert "accuracy/pgd/leaf" in out
    assert states(tmp_path / "outputs" / "sweeps" / "mine") == ["queued", "running", "finished"]
    assert main(["sweep", str(sweep), "seed=2"]) == 0
    assert "1 of 1 trials are finished already" in capfd.readouterr().err
