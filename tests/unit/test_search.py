"""A search finds good trials sooner than chance does, remembers, shares its work, and never sees the test split."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from random import Random
from statistics import median
from typing import Any

import pytest

from configs.errors import ConfigError, UserError
from experiments.sweep import assign, crew, search
from experiments.sweep.assignment import Assignment
from experiments.sweep.ledger import Ledger
from experiments.sweep.objective import measured, validated
from experiments.sweep.parameter import Range
from experiments.sweep.ranking import best
from experiments.sweep.search import FOLDER, Search
from experiments.sweep.spec import Sweep, read
from experiments.sweep.study import Study
from experiments.sweep.trial import Trial

BEST = 3e-3  # of optim.lr, in what the trials measure


@pytest.fixture(autouse=True)
def _cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew, "POLL_S", 0.01)
    monkeypatch.setattr(search, "composed_trial", plain_trial)


def plain_trial(_sweep: Sweep, setting: Mapping[str, Any]) -> Trial:
    """A trial without its configuration, which takes half a second."""
    name = f"{setting['optim.lr']}"
    return Trial(name, setting, (f"optim.lr={name}",), name, 0, Path(setting["output"]) / "debug" / name)


def sweep_file(tmp_path: Path, **changes: Any) -> str:
    content: dict[str, Any] = {
        "program": "debug",
        "method": "bayes",
        "run_cap": 6,
        "metric": {"name": "accuracy/clean/leaf", "goal": "minimize"},
        "parameters": {
            "optim.lr": {"min": 1e-5, "max": 1e-1, "distribution": "log_uniform_values"},
            "evaluation.split": {"value": "val"},
            "output": {"value": str(tmp_path / "outputs")},
        },
    }
    path = tmp_path / "mine.yaml"
    path.write_text(json.dumps({**content, **changes}))
    return str(path)


def assignment(tmp_path: Path, jobs: int = 1, **changes: Any) -> Assignment:
    asked = read(sweep_file(tmp_path, **changes))
    return Assignment(asked, (), (), jobs, Ledger(tmp_path / "outputs" / "sweeps" / "mine"))


def study(asked: Assignment) -> Study:
    return Study(asked.ledger.folder / FOLDER, asked.pinned)


def distance(learning_rate: float) -> float:
    """Decades from the best one, squared."""
    return math.log10(learning_rate / BEST) ** 2


def python(code: str, *arguments: object) -> tuple[str, ...]:
    return (sys.executable, "-S", "-c", code, *map(str, arguments))


def trained(trial: Trial) -> list[Sequence[str]]:
    """Leaves what a trial leaves; the number of its results is how often it was measured."""
    code = (
        "import os, sys\n"
        "os.makedirs(sys.argv[1], exist_ok=True)\n"
        "open(sys.argv[1] + '/results.jsonl', 'a').write('measured\\n')\n"
    )
    return [python(code, trial.folder)]


def objective(trial: Trial, _metric: str) -> float:
    return distance(trial.parameters["optim.lr"])


def searched(asked: Assignment) -> list[float]:
    """Learning rates in the order in which a search tried them."""
    assert Search(asked, study(asked), trained, objective).run() == 0
    return [trial.parameters["optim.lr"] for trial in asked.drawn]


def test_a_search_finds_better_trials_than_chance(tmp_path: Path) -> None:
    remembered = study(assignment(tmp_path))
    tried: list[float] = []
    for number in range(60):
        assert remembered.draw() == number
        tried.append(remembered.setting(number)["optim.lr"])
        assert remembered.setting(number)["optim.lr"] == tried[-1]
        remembered.settle(number, "finished", distance(tried[-1]))
    assert all(1e-5 <= value <= 1e-1 for value in tried)
    random = Random(0)
    chance = [distance(Range(1e-5, 1e-1, "log_uniform_values").draw(random)) for _ in range(2000)]
    assert median(map(distance, tried[-30:])) < sorted(chance)[len(chance) // 4]


def test_a_search_draws_the_same_again_and_goes_on_from_where_it_stood(tmp_path: Path) -> None:
    for name in ("whole", "halves"):
        (tmp_path / name).mkdir()
    whole = searched(assignment(tmp_path / "whole", run_cap=8))
    first = searched(assignment(tmp_path / "halves", run_cap=4))
    asked = assignment(tmp_path / "halves", run_cap=8)
    assert searched(asked) == whole
    assert whole[:4] == first
    assert searched(asked) == whole
    assert [(trial.folder / "results.jsonl").read_text().count("measured") for trial in asked.drawn] == [1] * 8


def test_the_best_trials_come_first(tmp_path: Path) -> None:
    asked = assignment(tmp_path)
    tried = searched(asked)
    told = best(asked, objective).splitlines()
    assert told[0].startswith("6 of 6 trials finished")
    assert [line.split()[1] for line in told[1:]] == [f"optim.lr={rate}" for rate in sorted(tried, key=distance)[:5]]
    worst = replace(asked, sweep=replace(asked.sweep, metric=("accuracy/clean/leaf", "maximize")))
    assert f"optim.lr={max(tried, key=distance)}" in best(worst, objective).splitlines()[1]


def _agent(tmp_path: str, jobs: int) -> None:
    asked = assignment(Path(tmp_path), jobs, run_cap=12)
    sys.exit(Search(asked, study(asked), trained, objective).run())


def test_agents_on_one_search_share_its_trials(tmp_path: Path) -> None:
    context = get_context("fork")
    agents = [context.Process(target=_agent, args=(str(tmp_path), 2)) for _ in range(2)]
    for agent in agents:
        agent.start()
    for agent in agents:
        agent.join(60)
    assert [agent.exitcode for agent in agents] == [0, 0]
    drawn = assignment(tmp_path).drawn
    assert len(drawn) == 12
    assert [(trial.folder / "results.jsonl").read_text().count("measured") for trial in drawn] == [1] * 12
    events = assignment(tmp_path).ledger.events()
    assert len({event.pid for event in events}) == 2


def test_trials_that_fall_behind_end_early(tmp_path: Path) -> None:
    """Of nine trials one a rung's third goes on; what it is compared by stands in metrics.csv."""

    def commands(trial: Trial) -> list[Sequence[str]]:
        code = (
            "import os, sys, time\n"
            "os.makedirs(sys.argv[1], exist_ok=True)\n"
            "file = open(sys.argv[1] + '/metrics.csv', 'w')\n"
            "print('step,train/loss,val/loss', file=file)\n"
            "for step in range(1, 5):\n"
            "    print(f'{2 * step - 1},1.0,\\n{2 * step},,{sys.argv[2]}', file=file, flush=True)\n"
            "    time.sleep(0.15)\n"
        )
        return [python(code, trial.folder, objective(trial, "")), *trained(trial)]

    changes = {"early_terminate": {"type": "hyperband", "min_iter": 1, "eta": 3}, "watch": "val/loss", "run_cap": 9}
    asked = assignment(tmp_path, **changes)
    assert Search(asked, study(asked), commands, objective).run() == 0
    last = asked.ledger.last()
    values: dict[str, list[float]] = {"finished": [], "pruned": []}
    for trial in asked.drawn:
        state = last[trial.identity].state
        values[state].append(objective(trial, ""))
        assert (trial.folder / "results.jsonl").exists() == (state == "finished")
        assert len(validated(trial, "val/loss")) == 4 or state == "pruned"
    assert len(values["pruned"]) >= 3
    assert min(values["finished"]) < min(values["pruned"])
    assert Search(asked, study(asked), commands, objective).run() == 0
    assert len(asked.drawn) == 9


def test_what_failed_is_tried_again_at_the_next_start(tmp_path: Path) -> None:
    asked = assignment(tmp_path, run_cap=3)
    broken = [python("import sys; sys.exit(3)")]
    some = lambda trial: broken if len(asked.drawn) == 2 else trained(trial)  # noqa: E731
    assert Search(asked, study(asked), some, objective).run() == 1
    tried = [trial.parameters["optim.lr"] for trial in asked.drawn]
    states = [asked.ledger.last()[trial.identity].state for trial in asked.drawn]
    assert states == ["finished", "failed", "finished"]
    assert searched(asked) == tried
    assert {event.state for event in asked.ledger.last().values()} == {"finished"}


AGENT = """
import sys, time
sys.path[:0] = [{tests!r}]
import test_search
from pathlib import Path
test_search.search.composed_trial = test_search.plain_trial
asked = test_search.assignment(Path(sys.argv[1]), run_cap=2)
commands = lambda trial: [test_search.python("import time; time.sleep(60)")]
test_search.Search(asked, test_search.study(asked), commands, test_search.objective).run()
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_trial_whose_agent_ended_is_continued(tmp_path: Path, number: signal.Signals) -> None:
    command = [sys.executable, "-c", AGENT.format(tests=str(Path(__file__).parent)), str(tmp_path)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    asked = assignment(tmp_path, run_cap=2)
    until = time.monotonic() + 60
    while not asked.drawn or not asked.ledger.log(asked.drawn[0]).exists():
        assert time.monotonic() < until
        time.sleep(0.05)
    os.kill(process.pid, number)
    process.wait(60)
    (begun,) = asked.drawn
    tried = searched(asked)
    assert len(tried) == 2
    assert tried[0] == begun.parameters["optim.lr"]
    states = [event.state for event in asked.ledger.events() if event.trial == begun.identity]
    between = [] if number == signal.SIGKILL else ["interrupted"]
    assert states == ["running", *between, "running", "finished"]


@pytest.mark.parametrize(
    ("override", "metric", "part"),
    [
        ("evaluation.split=test", "accuracy/clean/leaf", "evaluation.split is test, and a search must not see it"),
        ("data.val_split=test vaccination=null", "accuracy/clean/leaf", "data.val_split=test is the test split too"),
        ("seed=0", "auroc/mcm/near", "auroc/mcm/near is measured on data of the test"),
        ("seed=0", "auroc/mcm/near/pgd@linf-4", "auroc/mcm/near/pgd@linf-4 is measured on data of the test"),
    ],
)
def test_a_search_refuses_the_test_split(tmp_path: Path, override: str, metric: str, part: str) -> None:
    with pytest.raises(ConfigError) as caught:
        assign(sweep_file(tmp_path, metric={"name": metric, "goal": "maximize"}), "optuna", 1, override.split())
    assert part in str(caught.value)


def test_a_search_that_looks_at_validations_needs_some(tmp_path: Path) -> None:
    changes = {"early_terminate": {"type": "hyperband", "min_iter": 1}, "watch": "val/loss"}
    with pytest.raises(ConfigError, match=r"set trainer\.validate_every"):
        assign(sweep_file(tmp_path, **changes), "optuna", 1, ["trainer.validate_every=0"])


ROW: dict[str, Any] = {
    "metric": "accuracy",
    "value": 0.25,
    "n": 8,
    "dataset": "shapes",
    "level": 0,
    "stage": "after",
    "seed": 0,
    "checks": {},
    "git_sha": "abc",
    **dict.fromkeys(("score", "tree", "attack", "attack_name")),
}


def test_the_objective_is_a_figure_of_the_validation_split(tmp_path: Path) -> None:
    trial = Trial("t", {"experiment": "debug"}, (), "hash", 0, tmp_path)
    (tmp_path / "config.yaml").write_text("data: {val_split: holdout, test_split: val}")
    (tmp_path / "results.jsonl").write_text(json.dumps({**ROW, "split": "holdout"}) + "\n")
    assert measured(trial, "accuracy/clean/leaf") == 0.25
    with pytest.raises(UserError, match=r"has no figure accuracy/pgd20/leaf.*accuracy/clean/leaf"):
        measured(trial, "accuracy/pgd20/leaf")
    (tmp_path / "results.jsonl").write_text(json.dumps({**ROW, "split": "val"}) + "\n")
    with pytest.raises(UserError, match="has no figure accuracy/clean/leaf of the split holdout, which is all"):
        measured(trial, "accuracy/clean/leaf")


def test_a_trial_that_was_tested_since_still_counts_by_its_validation(tmp_path: Path) -> None:
    trial = Trial("t", {"experiment": "debug"}, (), "hash", 0, tmp_path)
    (tmp_path / "config.yaml").write_text("data: {val_split: val, test_split: test}")
    rows = [{**ROW, "split": split, "value": value} for split, value in (("val", 0.25), ("test", 0.75))]
    (tmp_path / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert measured(trial, "accuracy/clean/leaf") == 0.25
