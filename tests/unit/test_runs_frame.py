"""Runs as one table: every figure of every run that counts, the same from wherever it was read, nothing in silence."""

import json
import shutil
from pathlib import Path
from statistics import fmean

import found_runs
import made_runs
import pytest
from omegaconf import OmegaConf

from configs.errors import UserError
from experiments.analysis import load_curves, load_rows, load_runs
from experiments.analysis.runs import COLUMNS, flat
from experiments.sweep.plan import Plan
from experiments.sweep.trial import Trial


def swept(output: Path, trials: int = 3, started: int = 2) -> Path:
    """The folder of a sweep of which some trials were run."""
    configs = [made_runs.configured(output, seed=seed) for seed in range(trials)]
    for seed in range(started):
        made_runs.run(output, 0.8, 0.3, seed=seed)
    folder = output / "sweeps" / "seeds"
    planned = tuple(Trial.of(one, {"seed": one.config.seed}) for one in configs)
    Plan("seeds", "sweep seeds", None, {}, (), planned).write(folder)
    return folder


def test_a_figure_a_line_and_none_twice(tmp_path: Path) -> None:
    rows = [*made_runs.rows(0.9, 0.1, 4, "before"), *made_runs.rows(0.8, 0.3, 4)]
    folder = made_runs.write(made_runs.configured(tmp_path, seed=4), rows)
    frame = load_runs(folder).frame
    assert tuple(frame.columns) == COLUMNS
    assert not frame.duplicated(["run", "stage", "name"]).any()
    for row in load_rows(folder):
        level = frame.level.isna() if row.level is None else frame.level == row.level
        (line,) = frame[
            (frame.stage == row.stage) & (frame.metric == row.metric) & (frame.attack == (row.attack_name or "clean"))
            & (frame.eps_255 == row.eps_255) & level & (frame.name.str.contains("levels") == False)  # noqa: E712
        ].itertuples()  # fmt: skip
        assert (line.value, line.n, line.split, line.dataset, line.seed) == (
            row.value, row.n, row.split, row.dataset, row.seed,
        )  # fmt: skip
    means = frame[frame.name == "accuracy/pgd20/levels"].set_index("stage").value
    assert means["after"] == pytest.approx(fmean([0.3, 0.5]))
    assert len(frame) == len(rows) + 4
    assert set(frame.run) == {f"tecoa_openmoji-{folder.name}"}


def test_another_split_and_another_radius_are_figures_of_their_own(tmp_path: Path) -> None:
    """`evaluate` adds them to the same folder. The test split keeps its names, whichever was measured last."""
    rows = made_runs.rows(0.8, 0.3, 0)
    wider = [{**row, "attack": {**row["attack"], "eps_255": 16.0}, "value": 0.05} for row in rows if row["attack"]]
    other = [{**row, "split": "val", "value": 0.9} for row in rows if not row["score"]]
    made_runs.write(made_runs.configured(tmp_path), [*rows, *other, *wider])
    found = load_runs(tmp_path).frame
    assert not found.name.duplicated().any()
    values = found.set_index("name").value
    assert (values["accuracy/clean/leaf"], values["accuracy/clean/leaf@val"]) == (0.8, 0.9)
    assert values["accuracy/clean/levels@val"] == pytest.approx(0.9)
    assert values["accuracy/pgd20/levels@linf-16"] == pytest.approx(0.05)


def test_every_kind_of_source_gives_the_same(tmp_path: Path) -> None:
    sweep = swept(tmp_path, trials=2)
    expected = load_runs(tmp_path).frame
    assert expected.run.nunique() == 2
    experiment = tmp_path / "tecoa_openmoji"
    for sources in (
        [experiment], [sweep], [f"{tmp_path}/tecoa*"], [f"{tmp_path}/**"], [tmp_path, sweep],
        sorted(experiment.iterdir()),
    ):  # fmt: skip
        found = load_runs(*sources)
        assert found.frame.equals(expected)
        assert not found.excluded


def test_trials_that_were_not_started_are_told(tmp_path: Path) -> None:
    sweep = swept(tmp_path, trials=5)
    for source in (sweep, tmp_path):
        (told,) = load_runs(source).excluded
        assert "seed 2, 3, 4: not started (sweep seeds)" in told


def test_the_order_of_seeds_is_that_of_numbers(tmp_path: Path) -> None:
    for seed in (10, 9, 2):
        made_runs.run(tmp_path, 0.8, 0.3, seed=seed)
    assert [outcome.seed for outcome in load_runs(tmp_path).outcomes] == [2, 9, 10]


def test_what_does_not_count_is_told_and_can_be_asked_for(tmp_path: Path) -> None:
    made_runs.run(tmp_path, 0.8, 0.3, seed=0)
    for seed, state in enumerate(("running", "interrupted", "failed"), start=1):
        status = {"state": state, "step": 7, "message": "no space" if state == "failed" else ""}
        made_runs.write(made_runs.configured(tmp_path, seed=seed), made_runs.rows(0.1, 0.1, seed), status)
    made_runs.write(made_runs.configured(tmp_path, seed=4), [])
    damaged = made_runs.run(tmp_path, 0.8, 0.3, seed=5)
    (damaged / "results.jsonl").write_text('{"metric": 1}\n{}\n')
    found = load_runs(tmp_path)
    assert set(found.frame.seed) == {0}
    told = "\n".join(found.excluded)
    assert len(found.excluded) == 5
    for words in ("s1: running at step 7 of 20 (last", "s2: interrupted", "failed at step 7 of 20 (no space)",
                  "s4: has measured nothing", f"{damaged / 'results.jsonl'}, line 1"):  # fmt: skip
        assert words in told
    everything = found.with_unfinished()
    assert set(everything.frame.seed) == {0, 1, 2, 3}
    assert everything.excluded == found.excluded


def test_the_newest_measurement_and_the_newest_finished_copy_count(tmp_path: Path) -> None:
    config = made_runs.configured(tmp_path / "old")
    made_runs.write(config, [*made_runs.rows(0.1, 0.1, 0), *made_runs.rows(0.2, 0.2, 0)])
    assert set(load_runs(tmp_path).frame.query("name == 'accuracy/clean/leaf'").value) == {0.2}
    later = {"updated": "2026-02-01T00:00:00+00:00"}
    made_runs.write(made_runs.configured(tmp_path / "new"), made_runs.rows(0.3, 0.3, 0), later)
    broken = {"updated": "2026-03-01T00:00:00+00:00", "state": "failed"}
    made_runs.write(made_runs.configured(tmp_path / "broken"), made_runs.rows(0.4, 0.4, 0), broken)
    found = load_runs(tmp_path)
    assert set(found.frame.query("name == 'accuracy/clean/leaf'").value) == {0.3}
    assert len(found.excluded) == 2
    assert all("new/tecoa_openmoji" in sentence.partition("copy")[2] for sentence in found.excluded)


def test_a_run_that_was_only_measured_counts(tmp_path: Path) -> None:
    folder = made_runs.run(tmp_path, 0.8, 0.3)
    (folder / "status.json").unlink()
    (folder / "metrics.csv").unlink()
    found = load_runs(tmp_path)
    assert len(found.outcomes) == 1
    assert found.curves.empty
    assert list(found.curves.columns) == ["run", "step", "name", "value"]


def test_nothing_to_load_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for sources, words in (
        ((), "name what to load"), ((tmp_path / "none",), "there is no folder"), ((tmp_path / "empty",), "no run"),
        ((f"{tmp_path}/x*",), "there is no folder"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=words):
            load_runs(*sources)
    made_runs.write(made_runs.configured(tmp_path), [])
    found = load_runs(tmp_path)
    assert found.frame.empty
    assert tuple(found.frame.columns) == COLUMNS
    with pytest.raises(UserError, match="there is no run x here"):
        found.of("x")


@pytest.mark.parametrize("experiment", ["debug", "tecoa_openmoji", "immuno_openmoji"])
def test_settings_are_what_was_composed(tmp_path: Path, experiment: str) -> None:
    """OmegaConf reads 1e-05 as a number, as plain YAML does not."""
    composed = made_runs.configured(tmp_path, experiment, "optim.lr=1e-05")
    folder = made_runs.write(composed, made_runs.rows(0.8, 0.3, composed.config.seed))
    found = load_runs(folder)
    expected = flat(OmegaConf.to_container(OmegaConf.create(composed.resolved)))
    assert flat(found.outcomes[0].config) == expected
    assert expected["optim.lr"] == 1e-05
    assert found.settings.loc[found.outcomes[0].run, "optim.lr"] == 1e-05


def test_curves_are_those_of_the_files(tmp_path: Path) -> None:
    folders = [made_runs.run(tmp_path, 0.8, 0.3, seed=seed) for seed in range(2)]
    found = load_runs(tmp_path).curves
    for folder in folders:
        for name, (steps, values) in load_curves(folder).items():
            own = found[(found.run == f"tecoa_openmoji-{folder.name}") & (found.name == name)]
            assert own.step.tolist() == steps.tolist()
            assert own.value.tolist() == values.tolist()


def test_a_line_is_read_whole_however_its_fields_are_ordered(tmp_path: Path) -> None:
    row = found_runs.row(0.5, checks={"note": ', "config_hash": "not this"', "low": 1}, group="near", low=0.1)
    row["versions"] = {"config_hash": "nested"}
    texts = [
        json.dumps(row), json.dumps(row, separators=(",", ":")), json.dumps(dict(reversed(row.items()))),
        json.dumps({"config_hash": row.pop("config_hash"), **row}),
    ]  # fmt: skip
    for text in texts:
        (tmp_path / "results.jsonl").write_text(text + "\n")
        (read,) = load_rows(tmp_path)
        assert read.provenance["config_hash"] == "c0ffee12"
        assert read.provenance["versions"] == {"config_hash": "nested"}
        assert (read.checks, read.group, read.low) == (row["checks"], "near", 0.1)


def test_the_footer_says_where_everything_is_from(tmp_path: Path) -> None:
    made_runs.run(tmp_path, 0.8, 0.3, seed=0)
    changed = made_runs.rows(0.8, 0.3, 1, git_sha="4567-dirty", device="another one", versions={"torch": "2.9"})
    made_runs.write(made_runs.configured(tmp_path, seed=1), changed)
    made_runs.write(made_runs.configured(tmp_path, seed=2), [], {"state": "failed", "message": "no space"})
    found = load_runs(tmp_path)
    name = f"tecoa_openmoji-{found.outcomes[0].config_hash}"
    for words in (
        f"runs: {name}, seed 0, 1", "seeds: 2", "0123abcd; 4567 with changes that were not committed",
        "openmoji-open-world feedbeef", "torch 2.15.0", "torch 2.9", "a processor, 2 threads; another one",
        f"left out: {name}-s2: failed",
    ):  # fmt: skip
        assert words in found.footer


def test_evidence_is_a_runs_own(tmp_path: Path) -> None:
    folder = made_runs.run(tmp_path, 0.8, 0.3)
    made = found_runs.write(tmp_path / "made", found_runs.rows(("after",)))
    shutil.move(made / "evidence-after.npz", folder / "evidence-after.npz")
    shutil.rmtree(made)
    found = load_runs(tmp_path)
    assert set(found.evidence(found.outcomes[0].run)["after"].scores) == {"mcm"}
