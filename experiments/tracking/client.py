"""The process that talks to W&B: reads what a run tells from standard input, JSON objects, one a line, and writes to
standard output what the run should know. It ends with the run, or once the run is gone.

Where the server can't be reached when the run begins, the run is kept offline. Whatever happens later, wandb has
everything on disk before it sends it.
"""

import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from experiments.tracking.changes import changes
from experiments.tracking.tables import figures_table, pictures_table

STEP = "trainer/global_step"
STOP = frozenset({"stop", "cancel"})  # tags by which a person ends a training
ANSWER_S = 10.0  # for what a server that works does in one
LEAVING_S = 2.0
Say = Callable[..., None]


class Client:
    """One W&B run."""

    def __init__(self, told: Mapping[str, Any], say: Say) -> None:
        """
        Args:
            told: see `introduction`.
            say: answers the run, with `kind` and what belongs to it.
        """
        self._told, self._say = told, say
        self._last: dict[str, float] = {}
        self._failed: set[str] = set()
        self._filed: list[Any] = []
        # Of single questions to the server; read when wandb is imported.
        os.environ["WANDB_HTTP_TIMEOUT"] = str(max(1, round(min(ANSWER_S, told["patience"] / 3))))
        self._run: Any = None
        self._run = self._begin()

    def heed(self, message: Mapping[str, Any]) -> None:
        """Does what the run asks for, offline from the first time on that it can't be done online; says so where it
        can't be done at all."""
        try:
            try:
                self._do(**message)
            except Exception as error:  # wandb, its service and the network fail in many ways
                if self._run is None or self._run.offline:
                    raise
                self._run = self._offline(error)
                self._do(**message)
        except Exception as error:
            traceback.print_exc()
            if message["kind"] not in self._failed:  # once, of many rows
                self._failed.add(message["kind"])
                self._say(kind="problem", problem=f"lacks the {message['kind']} of this run ({_first_line(error)})")

    def _do(self, kind: str, **content: Any) -> None:
        getattr(self, f"_{kind}")(**content)

    def _begin(self) -> Any:
        if self._told["mode"] != "online":
            return self._init(self._told["mode"])
        try:
            run = self._init("online")
        except Exception as error:  # no network, no such account, no answer
            return self._offline(error)
        threading.Thread(target=self._poll, args=(run,), daemon=True).start()
        return run

    def _offline(self, error: Exception) -> Any:
        """Ends what is online, so that it is whole on disk, and begins a run of the same id that asks no server."""
        import wandb

        traceback.print_exception(error)
        self._say(kind="problem", problem=f"can't be reached ({_first_line(error)}), so this run goes on offline")
        # The service that has the run so far may still be waiting for an answer, and keeps its id for that long.
        online, self._run = self._run, None
        with suppress(Exception):
            if online is not None:
                online.finish(1)
        leaving = threading.Thread(target=wandb.teardown, daemon=True)
        leaving.start()
        leaving.join(LEAVING_S)
        return self._init("offline")

    def _init(self, mode: Any) -> Any:
        import wandb

        told = self._told
        settings = wandb.Settings(
            silent=True,
            console="off",
            init_timeout=min(2 * ANSWER_S, told["patience"] / 3),
            finish_timeout=min(ANSWER_S, told["patience"] / 3),
            finish_timeout_raises=True,
            disable_git=True,  # which would look where the run was started, not where its code is
            disable_code=True,
            x_stats_pid=told["process"],
            stop_fn=lambda: self._say(kind="stop"),  # the button in the browser
        )
        named = {name: told[name] for name in ("id", "name", "project", "group", "tags", "job_type", "config")}
        run = wandb.init(**named, dir=told["folder"], mode=mode, resume="allow", settings=settings)
        run.define_metric(STEP)
        run.define_metric("*", step_metric=STEP)
        if told["config"]["run"]["git_dirty"]:
            path = Path(run.dir) / "changes.diff"
            path.write_text(changes())
            run.save(str(path), base_path=run.dir, policy="now")
        return run

    def _log(self, metrics: Mapping[str, float], step: int) -> None:
        self._last |= metrics
        self._run.log({**metrics, STEP: step})

    def _note(self, facts: Mapping[str, Any]) -> None:
        known = dict(self._run.config["run"])
        self._run.config.update({"run": {**known, **facts}}, allow_val_change=True)

    def _measured(
        self, stage: str, summary: Mapping[str, float], table: Mapping[str, Any], pictures: Mapping[str, Any] | None
    ) -> None:
        self._last |= summary
        self._run.summary.update(dict(summary))
        shown = {f"results/{stage}": figures_table(table)}
        if pictures is not None:
            shown[f"pictures/{stage}"] = pictures_table(pictures)
        self._run.log(shown)

    def _artifact(
        self, name: str, type: str, paths: Sequence[str], aliases: Sequence[str] = (), used: bool = False
    ) -> None:
        """Files and folders. `used`: this run is made from them, which only a server can note."""
        import wandb

        artifact = wandb.Artifact(name, type, metadata={**self._told["config"]["run"], "metrics": self._last})
        for path in map(Path, paths):
            for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
                # Offline it waits for `wandb sync` as a copy, but for what is large, and what nobody changes.
                final = type == "model" and file.suffix == ".safetensors"
                policy: Any = "immutable" if final else "mutable"
                relative = str(file.relative_to(path.parent if path.is_file() else path))
                artifact.add_file(str(file), relative, skip_cache=True, policy=policy)
        if used and not self._run.offline:  # which waits for the upload, and nobody waits for that
            threading.Thread(target=self._run.use_artifact, args=(artifact,), daemon=True).start()
        else:
            self._run.log_artifact(artifact, aliases=list(aliases) or None)
        self._filed.append(artifact)

    def _finish(self, exit_code: int, patience: float) -> None:
        if exit_code > 128 and exit_code != 128 + signal.SIGINT:  # a person does not want it again
            self._run.mark_preempting()
        until = time.monotonic() + patience  # of all files together
        with suppress(Exception):  # a model takes its time, and `finish` gives little
            for artifact in [] if self._run.offline else self._filed:
                artifact.wait(max(1, round(until - time.monotonic())))
        try:
            self._run.finish(exit_code)
        except TimeoutError:
            self._say(kind="problem", problem="did not take all of this run in time")

    def _poll(self, run: Any) -> None:
        """Looks for a tag that asks to stop, and takes it away, or the next attempt would stop as well."""
        import wandb

        found: Any = None
        while True:
            time.sleep(self._told["poll"])
            if self._run is not run:  # it goes on offline
                return
            try:
                found = found or wandb.Api().run(run.path)
                tags = found.load(force=True)["tags"]
                if STOP.intersection(tags):
                    self._say(kind="stop")
                    run.tags = [tag for tag in tags if tag not in STOP]
                    return
            except Exception:
                traceback.print_exc()


def main(lines: Iterable[bytes], say: Say) -> None:
    """Speaks for a run until it finishes; where it doesn't, it was killed, and nobody waits for its files."""
    messages = (json.loads(line) for line in lines)
    client = Client(next(messages), say)
    for message in messages:
        client.heed(message)
        if message["kind"] == "finish":
            return
    client.heed({"kind": "finish", "exit_code": 1, "patience": ANSWER_S})


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [repr(error)])[0]


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)  # they are for the run, which says when it ends
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # nobody else writes among the answers
    main(sys.stdin.buffer, lambda **answer: print(json.dumps(answer), file=answers))
    os._exit(0)  # wandb would wait for its service, which has nothing left to do
