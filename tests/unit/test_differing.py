"""What differs between configurations: all of it that can matter, and nothing else."""

from dataclasses import replace
from pathlib import Path

import made_runs
import pytest

from configs.compose import OUTSIDE_THE_HASH
from experiments.analysis import differing, load_runs, methods, to_latex, to_markdown
from experiments.analysis.differing import text, varying
from experiments.analysis.runs import Runs


def test_only_what_varies_is_shown_with_hashes_and_seeds(tmp_path: Path) -> None:
    for seed in (0, 3):
        made_runs.run(tmp_path, 0.8, 0.3, "tecoa_openmoji", "attack.eps_255=2", seed=seed)
    made_runs.run(tmp_path, 0.8, 0.3, "tecoa_openmoji", "attack.eps_255=8.0", "optim.lr=1e-05")
    runs = load_runs(tmp_path)
    found = differing(runs)
    assert list(found.columns) == ["experiment", "config_hash", "seeds", "attack.eps_255", "optim.lr"]
    assert dict(zip(found["attack.eps_255"], found.seeds, strict=True)) == {"2": "0, 3", "8 (default)": "0"}
    assert set(found.config_hash) == {outcome.config_hash for outcome in runs.outcomes}
    assert differing(Runs([runs.outcomes[0]])).columns.tolist() == ["experiment", "config_hash", "seeds"]


def test_seeds_folders_and_logging_do_not_count_and_questions_do(tmp_path: Path) -> None:
    made_runs.run(tmp_path / "a", 0.8, 0.3, "tecoa_openmoji", "logging.project=other", "trainer.log_every=3")
    made_runs.run(tmp_path / "b", 0.8, 0.3, "tecoa_openmoji", "evaluation.attacked_samples=7", seed=1)
    found = varying(load_runs(tmp_path).outcomes)
    assert found == ["evaluation.attacked_samples"]
    assert {"seed", "output", "logging", "trainer.log_every"} <= set(OUTSIDE_THE_HASH)


def test_a_default_is_marked_and_an_absent_key_is_a_dash(tmp_path: Path) -> None:
    made_runs.run(tmp_path, 0.8, 0.3, "tecoa_openmoji", "optim.weight_decay=0.5", "attack.momentum=0.0")
    made_runs.run(tmp_path, 0.8, 0.3, "tecoa_openmoji", "attack.momentum=0.75")
    made_runs.run(tmp_path, 0.8, 0.3, "fare_openmoji", "attack.momentum=0.0")
    found = differing(load_runs(tmp_path)).set_index("experiment")
    assert found.loc["fare_openmoji", "attack.momentum"] == "0 (default)"
    assert set(found.loc["tecoa_openmoji", "attack.momentum"]) == {"0 (default)", "0.75"}
    assert set(found["module.objective.kind"]) == {"tecoa (default)", "fare"}


def test_a_key_that_some_lack_does_not_count_while_it_has_its_default(tmp_path: Path) -> None:
    """As when the schema has grown between two commits."""
    made_runs.run(tmp_path, 0.8, 0.3)
    made_runs.run(tmp_path, 0.8, 0.3, seed=1)
    old, new = load_runs(tmp_path).outcomes
    attack = {key: value for key, value in old.config["attack"].items() if key != "momentum"}
    old = replace(old, config={**old.config, "attack": attack})
    assert varying([old, new]) == []
    new = replace(new, config={**new.config, "attack": {**new.config["attack"], "momentum": 0.75}})
    assert varying([old, new]) == ["attack.momentum"]
    assert set(differing(Runs([old, new]))["attack.momentum"]) == {"-", "0.75"}


def test_an_empty_section_and_banks_that_train_nothing_make_no_method(tmp_path: Path) -> None:
    made_runs.run(tmp_path, 0.8, 0.3)
    made_runs.run(tmp_path, 0.8, 0.3, seed=1)
    old, new = load_runs(tmp_path).outcomes
    new = replace(new, config={**new.config, "extra": {}})
    assert varying([old, new]) == []
    banks = {**new.config["antibodies"], "mine": {"kind": "random"}}
    new = replace(new, config={**new.config, "antibodies": banks})
    assert varying([old, new]) == ["antibodies.mine.kind"]
    assert set(methods(Runs([old, new])).values()) == {"tecoa_openmoji"}
    new = replace(new, config={**new.config, "vaccination": {"bank": "mine"}})
    assert len(set(methods(Runs([old, new])).values())) == 2


def test_configurations_of_another_schema_are_compared_without_defaults(tmp_path: Path) -> None:
    made_runs.run(tmp_path, 0.8, 0.3)
    (outcome,) = load_runs(tmp_path).outcomes
    foreign = [
        replace(outcome, run=f"r{place}", config={**outcome.config, "warp": {"kind": "none", "factor": factor}})
        for place, factor in enumerate((1, [9, {"a": None}]))
    ]
    assert set(differing(Runs(foreign))["warp.factor"]) == {"1", "[9, {a: null}]"}


@pytest.mark.parametrize(
    ("value", "shown"),
    [(8.0, "8"), (8, "8"), (1e-05, "1e-05"), (True, "true"), (None, "null"), ("a b", "a b"), ([1.0, "x"], "[1, x]"),
     ({}, "{}"), (1e300, "1e+300")],
)  # fmt: skip
def test_values_are_written_as_in_yaml(value: object, shown: str) -> None:
    assert text(value) == shown


def test_every_configuration_has_a_name_of_its_own(tmp_path: Path) -> None:
    for lr, eps in (("0.1", "1"), ("0.1", "8"), ("0.2", "1")):
        made_runs.run(tmp_path, 0.8, 0.3, "tecoa_openmoji", f"optim.lr={lr}", f"attack.eps_255={eps}")
    made_runs.run(tmp_path, 0.8, 0.3, "fare_openmoji")
    runs = load_runs(tmp_path)
    called = methods(runs)
    assert len(set(called.values())) == len({outcome.config_hash for outcome in runs.outcomes}) == 4
    assert called[runs.outcomes[0].run] == "fare_openmoji"
    assert "tecoa_openmoji, attack.eps_255=1, optim.lr=0.1" in called.values()


def test_a_frame_can_go_into_a_paper(tmp_path: Path) -> None:
    made_runs.run(tmp_path, 0.8, 0.3)
    made_runs.run(tmp_path, 0.8, 0.3, "fare_openmoji")
    found = differing(load_runs(tmp_path))
    assert "| fare_openmoji " in to_markdown(found)
    assert r"tecoa\_openmoji" in to_latex(found)
