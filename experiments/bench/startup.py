"""Start-up: what a person waits for before anything is computed."""

import subprocess
import sys
import time
from statistics import median

from configs.layers import experiment_names
from experiments.bench.table import Row
from experiments.bench.targets import row

REPEATS = 5


def measure() -> list[Row]:
    """Seconds of the commands that must answer at once, and of an empty interpreter beside them."""
    name = experiment_names()[0]
    commands = {
        "--help / 1 s": ["-m", "experiments", "--help"],
        "show / 1 s": ["-m", "experiments", "show", name],
        "configuration error / 1 s": ["-m", "experiments", "show", name, "trainer.stepz=1"],
    }
    bare = _seconds(["-c", "pass"])
    return [row(label, _seconds(command), bare_interpreter_s=bare) for label, command in commands.items()]


def _seconds(arguments: list[str]) -> float:
    """The median over runs; the first, which may compile and fill caches, does not count."""
    taken = []
    for _ in range(1 + REPEATS):
        began = time.perf_counter()
        subprocess.run([sys.executable, *arguments], capture_output=True, check=False)
        taken.append(time.perf_counter() - began)
    return median(taken[1:])
