"""Trials of a sweep: each is run once, whoever asks for it, and what is finished or broken is known afterwards."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import pytest

from experiments.sweep import crew, server
from experiments.sweep.assignment import Assignment
from experiments.sweep.claim import STALE_S, Claim
from experiments.sweep.ledger import Ledger
from experiments.sweep.local import Agent
from experiments.sweep.share import share
from experiments.sweep.spec import read
from experiments.sweep.trial import Trial, methods, titles

Commands = Callable[[Trial], Sequence[Sequence[str]]]
DEAD_PID = 2**22 + 1  # above what a kernel gives out


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew, "POLL_S", 0.02)


def trials(tmp_path: Path, count: int) -> list[Trial]:
    return [
        Trial(
            f"t{seed}", {"experiment": "debug", "seed": seed}, (f"seed={seed}",), "hash", seed, tmp_path / f"run{seed}"
        )
        for seed in range(count)
    ]


def python(code: str, *arguments: object) -> tuple[str, ...]:
    return (sys.executable, "-S", "-c", code, *map(str, arguments))


def working(trial: Trial, pause: float = 0.0) -> list[Sequence[str]]:
    """Two commands that leave what a trial leaves, and count how often they were run."""
    train = "import os, sys, time; os.makedirs(sys.argv[1], exist_ok=True); time.sleep(float(sys.argv[2]))"
    evaluate = "import sys; open(sys.argv[1] + '/results.jsonl', 'a').write('measured\\n')"
    return [python(train, trial.folder, pause), python(evaluate, trial.folder)]


def breaking(*seeds: int) -> Commands:
    """Trials of these seeds fail in their first command."""

    def commands(trial: Trial) -> list[Sequence[str]]:
        code = "import sys; print('step 1\\rstep 2\\nerror: the loss is nan', file=sys.stderr); sys.exit(2)"
        return [python(code), *working(trial)] if trial.seed in seeds else working(trial)

    return commands


def measured(trial: Trial) -> int:
    """How often the trial was measured."""
    path = trial.folder / "results.jsonl"
    return len(path.read_text().splitlines()) if path.exists() else 0


def states(ledger: Ledger) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for event in ledger.events():
        found.setdefault(event.trial, []).append(event.state)
    return found


def test_every_trial_is_run_and_a_second_start_runs_none(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    ledger, planned = Ledger(tmp_path / "sweep"), trials(tmp_path, 4)
    assert Agent(ledger, planned, 2, working).run() == 0
    assert [measured(trial) for trial in planned] == [1, 1, 1, 1]
    assert states(ledger) == {trial.identity: ["running", "finished"] for trial in planned}
    assert not [path for path in (ledger.folder / "claims").iterdir() if path.name != ".lock"]
    assert Agent(ledger, planned, 2, working).run() == 0
    assert [measured(trial) for trial in planned] == [1, 1, 1, 1]
    assert "4 of 4 trials are finished already" in capfd.readouterr().err


def test_results_that_were_deleted_are_measured_again(tmp_path: Path) -> None:
    ledger, planned = Ledger(tmp_path / "sweep"), trials(tmp_path, 2)
    Agent(ledger, planned, 1, working).run()
    (planned[1].folder / "results.jsonl").unlink()
    assert Agent(ledger, planned, 1, working).run() == 0
    assert states(ledger)["t0"] == ["running", "finished"]
    assert measured(planned[1]) == 1


def test_a_broken_trial_does_not_stop_the_others_and_is_tried_again(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    ledger, planned = Ledger(tmp_path / "sweep"), trials(tmp_path, 3)
    assert Agent(ledger, planned, 1, breaking(0)).run() == 1
    assert [measured(trial) for trial in planned] == [0, 1, 1]
    failed = ledger.last()["t0"]
    assert (failed.state, failed.message) == ("failed", "error: the loss is nan")
    assert f"error: the loss is nan (read {ledger.log(planned[0])})" in capfd.readouterr().err
    assert b"step 1\rstep 2\n" in Path(failed.log).read_bytes()
    assert Agent(ledger, planned, 1, working).run() == 0
    assert states(ledger)["t0"] == ["running", "failed", "running", "finished"]


def test_what_failed_is_tried_again_though_a_server_gives_no_trial_out_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And is a failure of the command, whose agents end well."""
    path, planned, ledger = tmp_path / "mine.yaml", trials(tmp_path, 2), Ledger(tmp_path / "sweep")
    path.write_text("{program: debug, method: grid, parameters: {seed: {values: [0, 1]}}}")
    asked = Assignment(read(str(path)), (), tuple(planned), 1, ledger)
    asked.begin()
    monkeypatch.setenv("WANDB_API_KEY", "0123")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setattr(server, "_registered", lambda _: "me/immunoclip/abcd1234")
    monkeypatch.setattr(server, "_start", lambda _: subprocess.Popen(python("")))
    monkeypatch.setattr(server, "Agent", lambda *arguments: Agent(*arguments, working))
    Agent(ledger, planned, 1, breaking(0)).run()
    assert server.run(asked) == 0
    assert [measured(trial) for trial in planned] == [1, 1]
    monkeypatch.setattr(server, "_attend", lambda _: Agent(ledger, trials(tmp_path, 3)[2:], 1, breaking(2)).run() * 0)
    monkeypatch.setattr(server, "_start", lambda _: None)
    asked.plan.add(trials(tmp_path, 3)[2], ledger.folder)
    assert server.run(asked) == 1


def test_jobs_are_the_number_of_trials_at_a_time(tmp_path: Path) -> None:
    planned = trials(tmp_path, 5)
    code = (
        "import os, sys, time\n"
        "folder, name = sys.argv[1:]\n"
        "open(f'{folder}/{name}', 'w').close()\n"
        "time.sleep(0.3)\n"
        "print(len(os.listdir(folder)))\n"
        "os.remove(f'{folder}/{name}')\n"
        "print('at work:', os.environ['OMP_NUM_THREADS'])\n"
    )
    busy = tmp_path / "busy"
    busy.mkdir()
    ledger = Ledger(tmp_path / "sweep")
    Agent(ledger, planned, 2, lambda trial: [python(code, busy, trial.identity), *working(trial)]).run()
    counts = [int(line) for trial in planned for line in ledger.log(trial).read_text().splitlines() if line.isdigit()]
    assert len(counts) == 5
    assert max(counts) <= 2


def _agent(folder: Path, planned: list[Trial]) -> None:
    sys.exit(Agent(Ledger(folder), planned, 2, lambda trial: working(trial, 0.05)).run())


@pytest.mark.parametrize("stale", [False, True])
def test_agents_on_one_sweep_never_run_the_same_trial(tmp_path: Path, stale: bool) -> None:
    """Also where all of them find the claims of a dead one."""
    ledger, planned = Ledger(tmp_path / "sweep"), trials(tmp_path, 8)
    for trial in planned if stale else []:
        ledger.claim(trial).take()
        _sign(ledger.claim(trial), DEAD_PID)
    context = get_context("fork")
    agents = [context.Process(target=_agent, args=(ledger.folder, planned)) for _ in range(4)]
    for agent in agents:
        agent.start()
    for agent in agents:
        agent.join(60)
    assert [agent.exitcode for agent in agents] == [0] * 4
    assert [measured(trial) for trial in planned] == [1] * 8
    assert all(found == ["running", "finished"] for found in states(ledger).values())


def _sign(claim: Claim, pid: int, host: str | None = None, begun: int = 0) -> None:
    content = json.loads(claim.path.read_text())
    claim.path.write_text(json.dumps({**content, "processes": [(pid, begun)], **({"host": host} if host else {})}))


def test_a_claim_is_taken_by_one_and_free_again_once_released(tmp_path: Path) -> None:
    claim = Claim(tmp_path / "claims" / "t")
    taken: list[bool] = []
    threads = [threading.Thread(target=lambda: taken.append(claim.take())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == [False] * 7 + [True]
    assert str(os.getpid()) in claim.holder
    claim.release()
    assert claim.take()


def test_a_claim_whose_processes_are_dead_is_taken_over(tmp_path: Path) -> None:
    claim = Claim(tmp_path / "claims" / "t")
    assert claim.take()
    _sign(claim, DEAD_PID)
    assert claim.take()
    assert not claim.take()


@pytest.mark.skipif(sys.platform != "linux", reason="when a process began is asked of Linux")
def test_a_claim_is_not_kept_by_a_later_process_of_the_same_number(tmp_path: Path) -> None:
    """As in a container that was started anew: under its old name, with the numbers of the processes that died."""
    claim = Claim(tmp_path / "claims" / "t")
    claim.take()
    _sign(claim, os.getpid(), begun=1)
    assert claim.take()
    assert not claim.take()
    claim.release()
    claim.beat()  # of a process that slept while another took its trial over and ended it


def test_a_claim_lives_as_long_as_the_child_of_a_dead_agent(tmp_path: Path) -> None:
    claim = Claim(tmp_path / "claims" / "t")
    with subprocess.Popen(python("input()"), stdin=subprocess.PIPE) as child:
        claim.take()
        claim.sign(child.pid)
        content = json.loads(claim.path.read_text())
        claim.path.write_text(json.dumps({**content, "processes": [(DEAD_PID, 0), *content["processes"][1:]]}))
        assert not claim.take()
        child.communicate(b"\n")
    assert claim.take()


def test_a_claim_of_another_machine_is_stale_without_a_sign_of_life(tmp_path: Path) -> None:
    claim = Claim(tmp_path / "claims" / "t")
    claim.take()
    _sign(claim, os.getpid(), "elsewhere")
    assert not claim.take()
    assert "elsewhere" in claim.holder
    then = time.time() - STALE_S - 1
    os.utime(claim.path, (then, then))
    claim.beat()
    assert not claim.take()
    os.utime(claim.path, (then, then))
    assert claim.take()


def test_an_unsigned_claim_is_not_taken_over_at_once(tmp_path: Path) -> None:
    """Another process has created it, and writes its name next."""
    claim = Claim(tmp_path / "t")
    claim.path.touch()
    assert not claim.take()
    then = time.time() - STALE_S - 1
    os.utime(claim.path, (then, then))
    assert claim.take()


def test_a_trial_that_another_agent_ends_is_waited_for(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    ledger, planned = Ledger(tmp_path / "sweep"), trials(tmp_path, 2)
    for trial in planned:
        ledger.claim(trial).take()

    def others() -> None:
        time.sleep(0.3)
        for trial, state in zip(planned, ("finished", "failed"), strict=True):
            trial.folder.mkdir()
            (trial.folder / "results.jsonl").write_text("measured\n")
            ledger.record(trial, state)  # type: ignore[arg-type]
            ledger.claim(trial).release()

    other = threading.Thread(target=others)
    other.start()
    assert Agent(ledger, planned, 1, working).run() == 1  # one failed, and is not tried again at once
    other.join()
    assert [measured(trial) for trial in planned] == [1, 1]
    told = capfd.readouterr().err
    assert told.count("is run by process") == 2
    assert "finished by another agent" in told
    assert "failed by another agent" in told


SWEEPER = """
import sys
from pathlib import Path
sys.path[:0] = [{tests!r}]
import test_trials
from experiments.sweep import crew
crew.POLL_S = 0.02
folder = Path(sys.argv[1])
planned = test_trials.trials(folder, 3)
commands = lambda trial: test_trials.stubborn(trial)
sys.exit(test_trials.Agent(test_trials.Ledger(folder / "sweep"), planned, 2, commands).run())
"""


def stubborn(trial: Trial) -> list[Sequence[str]]:
    """Trains for a minute, and takes half a second to save itself after a SIGTERM."""
    code = (
        "import os, signal, sys, time\n"
        "def save(*_):\n"
        "    time.sleep(0.5)\n"
        "    open(sys.argv[1] + '/saved', 'w').close()\n"
        "    sys.exit(143)\n"
        "signal.signal(signal.SIGTERM, save)\n"
        "os.makedirs(sys.argv[1], exist_ok=True)\n"
        "open(sys.argv[1] + '/ready', 'w').write(str(os.getpid()))\n"
        "time.sleep(60)\n"
    )
    return [python(code, trial.folder), *working(trial)[1:]]


@contextmanager
def sweeping(tmp_path: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """An agent in a process of its own, with two trials at work."""
    code = SWEEPER.format(tests=str(Path(__file__).parent))
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stderr=subprocess.PIPE)
    ready = [tmp_path / f"run{seed}" / "ready" for seed in (0, 1)]
    try:
        wait(lambda: all(path.exists() and path.read_text() for path in ready))
        yield process
    finally:
        process.kill()


def wait(happened: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < until
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_lets_the_trials_save_and_a_new_start_goes_on(tmp_path: Path, number: signal.Signals) -> None:
    with sweeping(tmp_path) as process:
        process.send_signal(number)
        _, told = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert b"stopped; the same command goes on" in told
    planned, ledger = trials(tmp_path, 3), Ledger(tmp_path / "sweep")
    assert [(trial.folder / "saved").exists() for trial in planned] == [True, True, False]
    assert states(ledger) == {"t0": ["running", "interrupted"], "t1": ["running", "interrupted"]}
    assert Agent(ledger, planned, 2, working).run() == 0
    assert [measured(trial) for trial in planned] == [1, 1, 1]


def test_a_second_ctrl_c_kills(tmp_path: Path) -> None:
    with sweeping(tmp_path) as process:
        pids = [int((tmp_path / f"run{seed}" / "ready").read_text()) for seed in (0, 1)]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)  # will not save itself
        process.send_signal(signal.SIGINT)
        time.sleep(crew.PATIENCE_S + 0.2)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert process.returncode == 130
    assert not any((tmp_path / f"run{seed}" / "saved").exists() for seed in (0, 1))
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@pytest.mark.skipif(sys.platform != "linux", reason="a parent's death is a signal on Linux alone")
def test_where_the_agent_is_killed_its_trials_save_and_a_new_start_goes_on(tmp_path: Path) -> None:
    with sweeping(tmp_path) as process:
        process.kill()
        process.communicate(timeout=60)
        planned, ledger = trials(tmp_path, 3), Ledger(tmp_path / "sweep")
        assert Agent(ledger, planned, 2, working).run() == 0  # waits for the two that still save themselves
    assert [(trial.folder / "saved").exists() for trial in planned] == [True, True, False]
    assert [measured(trial) for trial in planned] == [1, 1, 1]


def test_lines_that_were_cut_off_are_skipped_and_do_not_swallow_the_next(tmp_path: Path) -> None:
    ledger, (trial, other) = Ledger(tmp_path), trials(tmp_path, 2)
    ledger.record(trial, "running")
    whole = (tmp_path / "trials.jsonl").read_bytes()
    (tmp_path / "trials.jsonl").write_bytes(whole + whole[: len(whole) // 2])
    assert [event.state for event in ledger.events()] == ["running"]
    ledger.record(other, "finished", 1.5)
    assert [(event.trial, event.state) for event in ledger.events()] == [("t0", "running"), ("t1", "finished")]


def test_methods_are_told_apart_by_what_differs_but_the_seed(tmp_path: Path) -> None:
    def named(*parameters: dict[str, object]) -> list[str]:
        made = [
            replace(trials(tmp_path, 1)[0], identity=str(place), parameters=one, seed=int(str(one["seed"])))
            for place, one in enumerate(parameters)
        ]
        assert [title.split(", seed ")[0] for title in titles(made).values()] == list(methods(made).values())
        return list(methods(made).values())

    one = {"experiment": "configs/experiment/a.yaml", "optim.lr": 0.1, "seed": 0}
    assert named(one, {**one, "seed": 1}) == ["a", "a"]
    assert named(one, {**one, "optim.lr": 1}) == ["optim.lr=0.1", "optim.lr=1"]
    assert named(one, {**one, "experiment": "b", "optim.lr": None}) == ["a, optim.lr=0.1", "b, optim.lr=None"]


def test_the_machine_is_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6")
    assert [share(slot, 2) for slot in (0, 1)] == [
        {"OMP_NUM_THREADS": "4", "CUDA_VISIBLE_DEVICES": "4,6"},
        {"OMP_NUM_THREADS": "4", "CUDA_VISIBLE_DEVICES": "5"},
    ]
    assert [share(slot, 4)["CUDA_VISIBLE_DEVICES"] for slot in range(4)] == ["4", "5", "6", "4"]
    assert share(0, 100)["OMP_NUM_THREADS"] == "1"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert "CUDA_VISIBLE_DEVICES" not in share(0, 2)
