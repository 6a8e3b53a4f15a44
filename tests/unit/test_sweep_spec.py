"""A sweep's file: what it means, and one sentence for each way of getting it wrong."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from wandb.sdk.launch.sweeps.utils import create_sweep_command_args

from configs.errors import ConfigError
from configs.layers import CONFIGS, fragment_names, override_layer
from experiments.cli import main
from experiments.sweep import ENGINES, assign
from experiments.sweep.expand import any_trial, composed_trial, expand, only_trial, override, settings
from experiments.sweep.parameter import Choice
from experiments.sweep.server import translated
from experiments.sweep.spec import Sweep, read
from experiments.sweep.trial import methods

GRID = {
    "method": "grid",
    "parameters": {"seed": {"values": [3, 1]}, "experiment": {"values": ["tecoa_openmoji", "fare_openmoji"]}},
}
RANDOM = {
    "program": "debug",
    "method": "random",
    "run_cap": 200,
    "parameters": {
        "optim.lr": {"min": 1e-5, "max": 1e-1, "distribution": "log_uniform_values"},
        "attack.eps_255": {"min": 1.5, "max": 8.5},
        "attack.steps": {"min": 1, "max": 3},
        "module.objective.kind": {"values": ["tecoa", "fare"]},
    },
}
SEARCH = {"method": "bayes", "run_cap": 3, "metric": {"name": "accuracy/clean/leaf", "goal": "maximize"}}

TEXT = st.text(st.characters(categories=("L", "N", "P", "S", "Zs")))  # YAML holds no control characters
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc_", min_size=1), inner, max_size=3),
    max_leaves=5,
)


def written(tmp_path: Path, content: Mapping[str, Any]) -> Sweep:
    path = tmp_path / "mine.yaml"
    path.write_text(json.dumps(content))  # JSON is YAML
    return read(str(path))


def test_a_grid_is_every_combination_with_the_last_parameter_fastest(tmp_path: Path) -> None:
    trials = expand(written(tmp_path, GRID))
    found = [(trial.parameters["seed"], trial.parameters["experiment"]) for trial in trials]
    assert found == [(3, "tecoa_openmoji"), (3, "fare_openmoji"), (1, "tecoa_openmoji"), (1, "fare_openmoji")]
    assert [trial.overrides for trial in trials] == [("seed=3",), ("seed=3",), ("seed=1",), ("seed=1",)]
    assert [trial.seed for trial in trials] == [3, 3, 1, 1]
    assert len({trial.folder for trial in trials}) == len({trial.identity for trial in trials}) == 4
    assert trials[0].config_hash == trials[2].config_hash != trials[1].config_hash
    assert expand(written(tmp_path, GRID)) == trials


def test_the_commands_train_and_then_measure_what_was_trained(tmp_path: Path) -> None:
    (train, evaluate), *_ = (trial.commands for trial in expand(written(tmp_path, GRID)))
    assert train[1:] == ("-m", "experiments", "train", "tecoa_openmoji", "seed=3")
    assert evaluate[1:] == ("-m", "experiments", "evaluate", "tecoa_openmoji", "seed=3", "--stage", "after")


def test_a_trial_is_what_is_run_and_asked_wherever_it_is_run(tmp_path: Path) -> None:
    def identities(*overrides: str) -> list[str]:
        content = {"program": "debug", "method": "grid", "parameters": {"seed": {"values": [0, 1]}}}
        return [trial.identity for trial in expand(written(tmp_path, content), overrides)]

    zero, one = identities()
    assert identities("output=elsewhere", "data.workers=3", "logging.project=mine") == [zero, one]
    assert identities("seed=1") == [one]
    for changed in ("seed=2", "optim.lr=0.5", "evaluation.split=val"):
        assert not {zero, one} & set(identities(changed))
    assert not {zero, one} & set(identities("experiment=quickstart"))


def test_every_engine_that_is_given_trials_is_given_the_same(tmp_path: Path) -> None:
    written(tmp_path, GRID)
    trials = {
        name: assign(str(tmp_path / "mine.yaml"), name, 1, ["seed=3", "optim.lr=0.5"]).trials
        for name, engine in ENGINES.items()
        if "grid" in engine.expanded
    }
    assert set(trials) == {"local", "submitit", "wandb"}
    assert len(trials["local"]) == 2
    assert trials["local"] == trials["submitit"] == trials["wandb"]


def test_who_looks_for_the_best_of_random_draws_may_see_the_validation_split_alone(tmp_path: Path) -> None:
    metric = {"metric": SEARCH["metric"]}
    with pytest.raises(ConfigError, match="a search must not see it; set evaluation"):
        expand(written(tmp_path, RANDOM | metric))
    parameters = {**RANDOM["parameters"], "evaluation.split": {"value": "val"}}  # type: ignore[dict-item]
    assert written(tmp_path, RANDOM | metric | {"parameters": parameters}).searches
    assert len(expand(written(tmp_path, RANDOM | metric | {"parameters": parameters, "run_cap": 2}))) == 2
    assert not written(tmp_path, RANDOM).searches
    choices = {"seed": {"values": [0, 1]}, "attack.steps": {"values": [1, 2]}}
    assert not written(tmp_path, RANDOM | metric | {"parameters": choices}).searches


@hypothesis_settings(deadline=None)
@given(VALUES)
def test_a_server_hands_every_value_on(value: Any) -> None:
    """Over the network as JSON, then through what `wandb agent` makes of it, to our command line."""
    assume("${" not in json.dumps(value))
    sweep = Sweep("a", "", "", "", "grid", {"optim.lr": Choice((value,))}, None, None, None, {}, (), {})
    sent = json.loads(json.dumps(translated(sweep)["parameters"]))
    (received,) = create_sweep_command_args({"args": sent})["args_no_hyphens"]
    found = override_layer([received]).values["optim"]["lr"]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("place", [0, 4])
def test_a_server_asks_for_the_trials_that_we_expand(place: int) -> None:
    """Also of those whose settings are sections; a setting that is left out is told."""
    asked = read("openmoji_vaccination")
    sent = {key: {"value": one["value"]} for key, one in translated(asked)["parameters"].items() if "value" in one}
    section = translated(asked)["parameters"]["vaccination"]["values"][place]
    args = {**sent, "seed": {"value": 1}, "vaccination": {"value": section}}
    setting = next(
        one
        for one in settings(asked)[place:]
        if one["seed"] == 1 and override("v", one["vaccination"]) == f"v={section}"
    )
    assert only_trial(asked, create_sweep_command_args({"args": args})["args_no_hyphens"]) == composed_trial(
        asked, setting
    )
    with pytest.raises(ConfigError, match=r"--trial runs one trial of .*; give vaccination as key=value"):
        only_trial(asked, ["seed=0"])


def test_a_server_is_told_no_key_of_ours(tmp_path: Path) -> None:
    changes = {"early_terminate": {"type": "hyperband", "min_iter": 2}, "watch": "val/loss", "slurm": {"minutes": 5}}
    sweep = written(tmp_path, {**RANDOM, **SEARCH, **changes, "compare": {"metrics": ["accuracy/*"]}})
    told = translated(sweep)
    assert not {"watch", "slurm", "compare"} & set(told)
    assert told["early_terminate"] == {"type": "hyperband", "min_iter": 2, "eta": 3}
    assert told["parameters"]["optim.lr"] == RANDOM["parameters"]["optim.lr"]  # type: ignore[index]
    assert told["parameters"]["attack.eps_255"]["distribution"] == "uniform"
    assert told["command"][-3:] == [str(tmp_path / "mine.yaml"), "--trial", "${args_no_hyphens}"]


def test_random_draws_are_within_their_bounds_and_the_same_each_time(tmp_path: Path) -> None:
    found = settings(written(tmp_path, RANDOM))
    assert len(found) == 200
    drawn = {key: [setting[key] for setting in found] for key in found[0]}
    assert all(1e-5 <= value <= 1e-1 for value in drawn["optim.lr"])
    assert min(drawn["optim.lr"]) < 1e-4 < 1e-2 < max(drawn["optim.lr"])  # as many in each decade
    assert all(1.5 <= value <= 8.5 for value in drawn["attack.eps_255"])
    assert set(drawn["attack.steps"]) == {1, 2, 3}
    assert set(drawn["module.objective.kind"]) == {"tecoa", "fare"}
    assert settings(written(tmp_path, RANDOM)) == found
    assert settings(written(tmp_path, {**RANDOM, "run_cap": 5})) == found[:5]
    assert settings(written(tmp_path, {**RANDOM, "name": "other"})) != found
    trial, _ = expand(written(tmp_path, {**RANDOM, "run_cap": 2}))
    assert f"optim.lr={found[0]['optim.lr']}" in trial.overrides


def test_equal_draws_are_one_trial(tmp_path: Path) -> None:
    content = {**RANDOM, "parameters": {"seed": {"values": [0, 1]}}}
    assert sorted(trial.seed for trial in expand(written(tmp_path, content))) == [0, 1]


@hypothesis_settings(deadline=None)
@given(VALUES)
def test_the_command_line_reads_every_value_back(value: Any) -> None:
    assume("${" not in json.dumps(value))  # which stands for another key
    found = override_layer([override("optim.lr", value)]).values["optim"]["lr"]
    assert found == value
    assert type(found) is type(value)


def test_plain_text_stays_bare_and_what_yaml_would_take_for_another_type_is_quoted() -> None:
    assert override("model.name", "mini") == "model.name=mini"
    assert override("model.name", "12") == 'model.name="12"'
    assert override("a", None) == "a=null"


def test_every_shipped_sweep_says_what_it_claims() -> None:
    for name in fragment_names("sweep"):
        lines = (CONFIGS / "sweep" / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
        assert [line.split()[1] for line in lines[:4]] == ["Claim:", "Expected:", "Time:", "Command:"]
        assert name in lines[3]


@pytest.mark.parametrize("name", fragment_names("sweep"))
def test_every_shipped_sweep_can_be_run_and_a_grid_has_all_its_seeds_for_all_its_methods(name: str) -> None:
    asked = read(name)
    assert any_trial(asked).overrides
    if asked.method == "grid":
        trials = expand(asked, ["seed=0"])
        assert len(set(methods(trials).values())) == len(trials) > 1
        assert len(settings(asked)) == len(trials) * len({setting["seed"] for setting in settings(asked)})


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"paramaters": {}}, "unknown key paramaters in {file}; did you mean 'parameters'?"),
        ({"method": "gird"}, "did you mean 'grid'?"),
        ({"method": "tpe"}, "choose from: grid, random, bayes"),
        ({"method": "bayes"}, "run_cap in {file}"),
        ({"method": "bayes", "run_cap": 3}, "metric in {file}"),
        ({"early_terminate": {"type": "hyperband", "min_iter": 1}}, "use method: bayes"),
        ({"watch": "val/robust_accuracy"}, "use method: bayes"),
        ({**SEARCH, "early_terminate": {"type": "median"}, "watch": "a"}, "choose from: hyperband"),
        ({**SEARCH, "early_terminate": {"type": "hyperband"}, "watch": "a"}, "early_terminate.min_iter in {file}"),
        ({**SEARCH, "early_terminate": {"type": "hyperband", "min_iter": 1}}, "watch, a column of metrics.csv"),
        ({**SEARCH, "watch": "a"}, "early_terminate in {file}"),
        ({"slurm": "gpu"}, "slurm in {file} must be a section"),
        ({"method": None}, "method in {file}"),
        ({"parameters": None}, "parameters in {file} must be a section"),
        ({"program": "debug"}, "must name its experiment once"),
        ({"parameters": {"seed": {"values": [0]}}}, "must name its experiment once"),
        ({"run_cap": 0}, "run_cap in {file}"),
        ({"metric": {"name": "a", "gaol": "maximize"}}, "unknown key metric.gaol in {file}; did you mean 'goal'?"),
        ({"metric": {"name": "a", "goal": "more"}}, "choose from: maximize, minimize"),
        ({"metric": {"goal": "maximize"}}, "metric.name"),
        ({"name": "a/b"}, "becomes a folder"),
        ({"compare": {"base": {}}}, "did you mean 'baseline'?"),
        ({"compare": {"metrics": "accuracy/*"}}, "compare.metrics in {file}"),
        ({"compare": {"baseline": {"experiment": "debug"}}}, "no value of that parameter"),
        ({"compare": {"baseline": {"experimnt": "debug"}}}, "did you mean 'experiment'?"),
        ({"compare": {"baseline": {"seed": 3}}}, "give experiment too"),
        ({"base": "experiment/debug.yaml"}, "has a base"),
    ],
)
def test_a_wrong_file_is_one_sentence_that_names_file_key_and_remedy(
    changes: dict[str, Any], part: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as caught:
        written(tmp_path, {**GRID, **changes})
    assert part.format(file=tmp_path / "mine.yaml") in str(caught.value)


@pytest.mark.parametrize(
    ("parameter", "part"),
    [
        ({}, "parameters.optim.lr in {file} needs values"),
        ({"values": []}, "must be a list with an entry at least"),
        ({"values": 3}, "must be a list"),
        ({"value": 1, "values": [1]}, "needs values"),
        ({"vlaues": [1]}, "did you mean 'values'?"),
        ({"min": 1}, "needs values"),
        ({"min": 2, "max": 1}, "min < max"),
        ({"min": "a", "max": 1}, "min < max"),
        ({"min": 0.5, "max": 1, "distribution": "int_uniform"}, "whole numbers"),
        ({"min": 0, "max": 1, "distribution": "log_uniform_values"}, "min > 0"),
        ({"min": 0, "max": 1, "distribution": "unifrom"}, "did you mean 'uniform'?"),
        (3, "must be a section"),
    ],
)
def test_a_wrong_parameter_is_one_sentence(parameter: Any, part: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        written(tmp_path, {**RANDOM, "parameters": {"optim.lr": parameter}})
    assert part.format(file=tmp_path / "mine.yaml") in str(caught.value)


def test_a_range_has_no_grid(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="list its values, or use method: random"):
        written(tmp_path, {**RANDOM, "method": "grid"})


@pytest.mark.parametrize(
    ("key", "values", "part"),
    [
        ("experiment", ["debug", "debgu"], "there is no experiment 'debgu'; did you mean 'debug'?"),
        ("optim.lrr", [1], "optim.lrr"),
        ("optim.lr", [1, "fast"], "optim.lr must be a number"),
        ("evaluation.split", ["val", "test"], "are one run"),
        ("attack.steps", [1, 1], "are one run"),
    ],
)
def test_a_trial_that_can_not_be_run_is_told_before_any_is(
    key: str, values: list[Any], part: str, tmp_path: Path
) -> None:
    content = {"method": "grid", "parameters": {"experiment": {"values": ["debug"]}, key: {"values": values}}}
    with pytest.raises(ConfigError, match=r"mine\.yaml.*trial") as caught:
        expand(written(tmp_path, content))
    assert part in str(caught.value)


@pytest.mark.parametrize(
    ("argv", "part"),
    [
        (["openmoji_hierarchial"], "did you mean 'openmoji_hierarchical'?"),
        (["nowhere/mine.yaml"], "there is no sweep file nowhere/mine.yaml"),
        (["openmoji_hierarchical", "--engine", "slurm"], "there is no engine 'slurm'; choose from: local"),
        (["openmoji_hierarchical", "--engine", "locl"], "did you mean 'local'?"),
        (["openmoji_hierarchical", "--jobs", "0"], "--jobs"),
        (["openmoji_hierarchical", "--jobs", "many"], "--jobs"),
        (["openmoji_hierarchical", "optim.lrr=1"], "optim.lrr"),
        (["openmoji_hierarchical", "seed"], "key=value"),
        (["openmoji_hierarchical", "--trial", "--dry-run", "seed=0"], "leave --engine, --jobs and --dry-run out"),
        ([], "SWEEP"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_two(
    argv: list[str], part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sweep", *argv]) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: ")
    assert told.count("\n") == 1
    assert part in told


def test_a_dry_run_lists_the_trials_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", "openmoji_hierarchical", "--dry-run", f"output={tmp_path / 'outputs'}", "seed=3"]) == 0
    told = capsys.readouterr().out
    assert "5 trials" in told
    assert "tecoa_openmoji, seed 3" in told
    assert told.count("to do") == 5
    assert not list(tmp_path.iterdir())
