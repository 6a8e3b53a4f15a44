"""Trials as jobs of a cluster: on this machine, and on a SLURM that only this test knows."""

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from configs.errors import ConfigError
from experiments.sweep import assign, crew, slurm
from experiments.sweep.assignment import Assignment
from experiments.sweep.cluster import Cluster, Needs
from experiments.sweep.ledger import Ledger
from experiments.sweep.slurm import Queue
from experiments.sweep.spec import read
from experiments.sweep.trial import Trial

SLURM = {
    # Runs each element of the array at once, and again as long as somebody has asked for that.
    "sbatch": """
        range=$(grep -o 'array=[0-9-]*' "$1" | cut -d= -f2)
        for index in $(seq "${range%-*}" "${range#*-}"); do
          touch "$CLUSTER/77_$index"
          (
            export SLURM_JOB_ID=$((100 + index)) SLURM_ARRAY_JOB_ID=77 SLURM_ARRAY_TASK_ID=$index
            while bash "$1" >> "$CLUSTER/said" 2>&1; [ -e "$CLUSTER/again_77_$index" ]; do
              rm "$CLUSTER/again_77_$index"
            done
            rm "$CLUSTER/77_$index"
          ) > /dev/null 2>&1 &
        done
        cp "$1" "$CLUSTER/script"
        echo "Submitted batch job 77"
    """,
    "srun": """
        echo "$@" >> "$CLUSTER/launched"
        while [[ "$1" == --* ]]; do shift; done
        exec "$@"
    """,
    "squeue": 'cd "$CLUSTER" && ls | grep "^77_"; true',
    "scontrol": 'touch "$CLUSTER/again_$2"',
}


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew, "POLL_S", 0.05)
    monkeypatch.setattr(slurm, "POLL_S", 0.1)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), os.getcwd()]))
    monkeypatch.setattr(Needs, "of", lambda _trial: Needs(nodes=1, devices=2, gpus=False))


@pytest.fixture
def queues(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a SLURM, which is first in the PATH."""
    cluster = tmp_path / "cluster"
    (cluster / "bin").mkdir(parents=True)
    for name, body in SLURM.items():
        (cluster / "bin" / name).write_text(f"#!/bin/bash\n{body}\n")
        (cluster / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{cluster / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("CLUSTER", str(cluster))
    return cluster


def assignment(tmp_path: Path) -> Assignment:
    """Two trials, two at a time."""
    path = tmp_path / "mine.yaml"
    parameters = {"seed": {"values": [0, 1]}}
    path.write_text(json.dumps({"program": "debug", "method": "grid", "parameters": parameters}))
    trials = [
        Trial(f"t{seed}", {"experiment": "debug", "seed": seed}, (), "hash", seed, tmp_path / f"run{seed}")
        for seed in (0, 1)
    ]
    return Assignment(read(str(path)), (), tuple(trials), 2, Ledger(tmp_path / "sweep"))


def commands(trial: Trial) -> list[Sequence[str]]:
    """Trains, saves itself where it is asked to, and then only measures. Notes its environment. Seed 1 takes long."""
    code = (
        "import os, signal, sys, time\n"
        "folder, seed = sys.argv[1:]\n"
        "os.makedirs(folder, exist_ok=True)\n"
        "def save(number, frame):\n"
        "    open(folder + '/saved', 'w').close()\n"
        "    os._exit(128 + number)\n"
        "signal.signal(signal.SIGTERM, save), signal.signal(signal.SIGUSR2, save)\n"
        "names = ('MASTER_PORT', 'IMMUNOCLIP_REQUEUE', 'IMMUNOCLIP_SWEEP')\n"
        "open(folder + '/environment', 'a').write(' '.join(os.environ[name] for name in names) + '\\n')\n"
        "if seed == '1' and not os.path.exists(folder + '/saved'):\n"
        "    time.sleep(60)\n"
        "open(folder + '/results.jsonl', 'a').write('measured\\n')\n"
    )
    return [(sys.executable, "-S", "-c", code, str(trial.folder), str(trial.seed))]


def warn(asked: Assignment) -> None:
    """Does to the second job what a cluster does before it ends one."""
    environment = asked.trials[1].folder / "environment"
    wait(lambda: environment.exists() and environment.read_text().endswith("\n"))
    claim = json.loads(asked.ledger.claim(asked.trials[1]).path.read_text())
    os.kill(claim["processes"][0][0], signal.SIGUSR2)


def interrupt(asked: Assignment) -> None:
    """Ctrl-C, once the second job is at work."""
    wait((asked.trials[1].folder / "environment").exists)
    os.kill(os.getpid(), signal.SIGINT)


def wait(happened: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < until
        time.sleep(0.05)


def disturbed(asked: Assignment, kind: str, disturbance: Callable[[Assignment], None]) -> int:
    """What a queue returns while something happens to it."""
    thread = threading.Thread(target=disturbance, args=(asked,))
    thread.start()
    code = Queue(asked, Cluster(kind), commands).run()
    thread.join()
    return code


def states(asked: Assignment, seed: int) -> list[str]:
    return [event.state for event in asked.ledger.events() if event.trial == f"t{seed}"]


def measured(asked: Assignment) -> list[int]:
    return [len((trial.folder / "results.jsonl").read_text().splitlines()) for trial in asked.trials]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["local", "slurm"])
def test_a_pre_empted_trial_saves_itself_and_goes_on_once(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest, capfd: pytest.CaptureFixture[str]
) -> None:
    """Two jobs of an array, of which one is warned; submitit alone queues it again."""
    cluster = request.getfixturevalue("queues") if kind == "slurm" else tmp_path
    asked = assignment(tmp_path)
    assert disturbed(asked, kind, warn) == 0
    assert states(asked, 0) == ["queued", "running", "finished"]
    assert states(asked, 1) == ["queued", "running", "interrupted", "running", "finished"]
    assert measured(asked) == [1, 1]
    told = [(trial.folder / "environment").read_text().splitlines() for trial in asked.trials]
    assert [len(lines) for lines in told] == [1, 2]
    assert {line.split(" ", 1)[1] for lines in told for line in lines} == {"launcher sweep"}
    assert len({line.split()[0] for lines in told for line in lines}) == 3  # each its own port
    if kind == "slurm":
        assert (cluster / "launched").read_text().count(f"--kill-on-bad-exit=1 {sys.executable}") == 3
        script = (cluster / "script").read_text()
        for flag in ("--array=0-1%2", "--ntasks-per-node=2", "--signal=B:USR2@"):
            assert flag in script
    capfd.readouterr()
    assert Queue(asked, Cluster(kind), commands).run() == 0
    assert measured(asked) == [1, 1]
    assert "submitted" not in capfd.readouterr().err


@pytest.mark.slow
@pytest.mark.usefixtures("queues")
def test_a_stop_leaves_the_jobs_of_a_cluster_alone_and_the_next_start_waits_for_them(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    asked = assignment(tmp_path)
    assert disturbed(asked, "slurm", interrupt) == 130
    assert disturbed(asked, "slurm", warn) == 0
    assert "trials are in the queue already" in capfd.readouterr().err  # one, or both
    assert states(asked, 1).count("queued") == 1
    assert measured(asked) == [1, 1]


@pytest.mark.slow
def test_a_stop_on_this_machine_lets_trials_save_themselves(tmp_path: Path) -> None:
    asked = assignment(tmp_path)
    assert disturbed(asked, "local", interrupt) == 130
    assert (asked.trials[1].folder / "saved").exists()
    assert states(asked, 1)[-1] == "interrupted"
    assert Queue(asked, Cluster("local"), commands).run() == 0
    assert measured(asked) == [1, 1]


@pytest.mark.parametrize(
    ("section", "part"),
    [
        ({"partitoin": "gpu"}, "unknown key slurm.partitoin in mine; did you mean 'partition'?"),
        ({"minutes": "long"}, "slurm.minutes in mine must be"),
        ({"minutes": 0}, "slurm.minutes in mine must be 1 at least"),
        ({"kind": "pbs"}, "choose from: slurm, local"),
    ],
)
def test_a_wrong_section_is_one_sentence(section: dict[str, object], part: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Cluster.of("mine", section)
    assert part in str(caught.value)


def test_the_command_line_wins_over_the_section(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    content = {"program": "debug", "method": "grid", "parameters": {"seed": {"value": 0}}}
    path.write_text(json.dumps({**content, "slurm": {"minutes": 10, "partition": "gpu"}}))
    found = assign(str(path), "submitit", 1, ["slurm.minutes=20", f"output={tmp_path}"])
    assert Cluster.of("mine", found.sweep.slurm) == Cluster(minutes=20, partition="gpu")
    assert found.trials[0].overrides == ("seed=0", f"output={tmp_path}")
