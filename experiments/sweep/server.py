"""The engine `wandb`: a W&B server says which trial is next, and agents of this machine run what it says.

Settings reach a trial on the command line alone, so that all its ranks have them: never by way of `wandb.config`.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from configs.compose import compose
from configs.errors import UserError
from experiments.atomic import write_text
from experiments.sweep import crew
from experiments.sweep.assignment import Assignment
from experiments.sweep.claim import exclusive
from experiments.sweep.expand import override
from experiments.sweep.local import Agent
from experiments.sweep.parameter import Choice, Parameter, fixed
from experiments.sweep.spec import EXPERIMENT, Sweep
from experiments.sweep.trial import Trial
from experiments.tracking.account import mode

FOLDER = "wandb"  # in the sweep's: which sweep of the server it is, so that the next start goes on with it
PATIENCE_S = 600  # an agent that is told to end waits so long for its trial to save its step
COMMAND = ("${env}", "${interpreter}", "-m", "experiments", "sweep")  # then the file, --trial, and the settings


def describe(assignment: Assignment) -> str:
    """The sweep as W&B takes it, for `wandb sweep FILE` and `wandb agent ID`."""
    return OmegaConf.to_yaml(OmegaConf.create(translated(assignment.pinned)))


def run(assignment: Assignment) -> int:
    """Registers the sweep, unless an earlier start did, runs `jobs` agents until the server has no more trials, and
    tries again what had failed before: the server gives no trial out twice.

    Returns 0 where agents and trials ended well, 1 where one did not, 128 + signal after Ctrl-C or SIGTERM.

    Raises:
        UserError: no key, no server, or a server that refuses the sweep.
    """
    if mode("auto") != "online":
        raise UserError(
            "the engine wandb needs a W&B server, and W&B is offline here; run 'wandb login', unset WANDB_MODE, or use "
            "--engine local"
        )
    broken = _failed(assignment)
    path = _registered(assignment)
    command = [sys.executable, "-m", "wandb", "agent", "--forward-signals", "--term-timeout", str(PATIENCE_S), path]
    if assignment.trials:
        command[-1:-1] = ["--count", str(len(assignment.trials))]
    crew.say(f"{assignment.jobs} agents of the sweep {path}; other machines join with: wandb agent {path}")
    code = _attend([_start(command) for _ in range(assignment.jobs)])
    if broken and code < 128:
        code = max(code, Agent(assignment.ledger, broken, assignment.jobs).run())
    return code or int(bool(_failed(assignment)))


def _failed(assignment: Assignment) -> list[Trial]:
    """What failed last time; an agent of W&B's ends well all the same."""
    last = assignment.ledger.last()
    return [one for one in assignment.drawn if one.identity in last and last[one.identity].state == "failed"]


def translated(sweep: Sweep) -> dict[str, Any]:
    """A sweep for W&B: without keys of ours, with the command that runs a trial, and with values that W&B's `str`
    leaves readable."""
    told: dict[str, Any] = {"name": sweep.name, "description": sweep.description, "program": "experiments"}
    told["method"] = sweep.method
    if sweep.run_cap is not None:
        told["run_cap"] = sweep.run_cap
    if sweep.metric is not None:
        told["metric"] = dict(zip(("name", "goal"), sweep.metric, strict=True))
    told["parameters"] = {key: _parameter(key, one) for key, one in sweep.parameters.items()}
    if sweep.halving is not None:
        told["early_terminate"] = {
            "type": "hyperband",
            "min_iter": sweep.halving.min_iter,
            "eta": sweep.halving.eta,
        }
    told["command"] = [*COMMAND, sweep.file, "--trial", "${args_no_hyphens}"]
    return told


def _parameter(key: str, parameter: Parameter) -> dict[str, Any]:
    if isinstance(parameter, Choice):
        values = [_readable(key, value) for value in parameter.values]
        return {"value": values[0]} if fixed(parameter) else {"values": values}
    return {"min": parameter.low, "max": parameter.high, "distribution": parameter.distribution}


def _readable(key: str, value: Any) -> Any:
    """Numbers stay numbers; all else becomes the text that stands for it on our command line, JSON where it must."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return value if number else override(key, value).partition("=")[2]


def _registered(assignment: Assignment) -> str:
    """ENTITY/PROJECT/ID of the sweep on the server, which the first of those who start it registers."""
    folder, told = assignment.ledger.folder / FOLDER, translated(assignment.pinned)
    note = folder / "sweep.json"
    with exclusive(folder):
        known: Mapping[str, Any] = json.loads(note.read_text()) if note.exists() else {}
        if known.get("sweep") == told:
            crew.say(f"{note} has the sweep of an earlier start; without that file another is registered")
            return str(known["path"])
        path = _register(told, _project(assignment))
        write_text(note, json.dumps({"path": path, "sweep": told}, indent=2) + "\n")
        return path


def _register(told: dict[str, Any], project: str) -> str:
    import wandb

    try:
        identity = wandb.sweep(told, project=project)
        api = wandb.Api()
        entity = os.environ.get("WANDB_ENTITY") or api.default_entity
    except Exception as error:  # wandb, its service and the network fail in many ways
        reason = (str(error).splitlines() or [repr(error)])[0]
        raise UserError(f"W&B does not take the sweep: {reason}; see 'wandb login', or use --engine local") from error
    return f"{entity}/{os.environ.get('WANDB_PROJECT', project)}/{identity}"


def _project(assignment: Assignment) -> str:
    """Where the trials' runs are, as their configuration says."""
    experiments = assignment.sweep.parameters[EXPERIMENT]
    assert isinstance(experiments, Choice)
    settings = [one for one in assignment.overrides if not one.startswith(f"{EXPERIMENT}=")]
    return compose(str(experiments.values[0]), settings).config.logging.project


def _start(command: list[str]) -> "subprocess.Popen[bytes]":
    """An agent, whose `python` is this one."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    return subprocess.Popen(command, env=os.environ | {"PATH": path}, start_new_session=True)


def _attend(agents: "list[subprocess.Popen[bytes]]") -> int:
    with crew.signals() as received:
        while not received and any(agent.poll() is None for agent in agents):
            time.sleep(crew.POLL_S)
        for agent in agents if received else ():
            agent.terminate()
        codes = [agent.wait() for agent in agents]
    return 128 + received[0][0] if received else int(any(codes))
