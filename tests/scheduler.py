"""SLURM's scontrol, as a script that writes down what it is asked."""

import os
from pathlib import Path

_SCRIPT = """#!/bin/sh
cd "${{0%/*}}"
echo "$@" >> calls
case "$1" in
  show) echo "JobId=71 JobName=train"; echo "   JobState=$(cat state) Reason=None" ;;
  requeue)
    test -f refusal && {{ cat refusal >&2; exit 1; }}
    grep -h '"state"' {outputs}/*/*/status.json >> statuses
    true ;;
esac
"""


class Scheduler:
    """A folder with `scontrol` in it; whoever has `environment` calls it."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        self.state = "RUNNING"
        script = folder / "scontrol"
        script.write_text(_SCRIPT.format(outputs=folder.parent / "outputs"))
        script.chmod(0o755)

    @property
    def environment(self) -> dict[str, str]:
        """What finds it."""
        return {"PATH": f"{self.folder}{os.pathsep}{os.environ['PATH']}"}

    @property
    def state(self) -> str:
        """Of all jobs."""
        return (self.folder / "state").read_text()

    @state.setter
    def state(self, state: str) -> None:
        (self.folder / "state").write_text(state)

    @property
    def requeued(self) -> list[str]:
        """The job of each request."""
        return [call.split()[1] for call in self._lines("calls") if call.startswith("requeue ")]

    @property
    def found(self) -> list[str]:
        """What the runs below `outputs` beside the folder said of themselves at each request."""
        return [line.split('"')[3] for line in self._lines("statuses")]

    def refuse(self) -> None:
        """Requeues nothing from now on."""
        (self.folder / "refusal").write_text("Requested operation is presently disabled for job 71\n")

    def _lines(self, name: str) -> list[str]:
        path = self.folder / name
        return path.read_text().splitlines() if path.exists() else []
