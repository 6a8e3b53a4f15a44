"""Reading a run's folder, doubting its figures, and putting them into words."""

import json
import logging
from pathlib import Path

import found_runs
import numpy as np
import pytest

from configs.errors import UserError
from experiments.analysis import Row, load_curves, load_evidence, load_rows
from experiments.analysis.doubts import doubts, examined
from experiments.analysis.headline import cost, headline, open_world
from experiments.analysis.loading import load_status

ATTACKED = {"attack": found_runs.PGD, "attack_name": "pgd20"}
STRONGER = {"attack": found_runs.APGD, "attack_name": "apgd"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return found_runs.write(tmp_path / "run", found_runs.rows())


def parsed(*found: dict) -> list[Row]:
    return [Row.parse(fields) for fields in found]


def save(folder: Path, *found: dict) -> Path:
    (folder / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in found))
    return folder


def test_rows_come_back_as_they_were_written(folder: Path) -> None:
    written = found_runs.rows()
    read = load_rows(folder)
    assert [(row.metric, row.value, row.n, row.level, row.tree, row.stage) for row in read] == [
        (row["metric"], row["value"], row["n"], row["level"], row["tree"], row["stage"]) for row in written
    ]
    assert read[0].provenance["device"] == written[0]["device"]


def test_the_newest_of_a_repeated_measurement_wins(tmp_path: Path) -> None:
    rows = load_rows(
        save(tmp_path, found_runs.row(0.1), found_runs.row(0.9, level=1, tree="unicode"), found_runs.row(0.2))
    )
    assert [row.value for row in rows] == [0.2, 0.9]


def test_a_clean_row_and_the_sweep_at_radius_zero_are_two_measurements(tmp_path: Path) -> None:
    rows = load_rows(save(tmp_path, found_runs.row(0.1), found_runs.row(0.2, attack_name="sweep")))
    assert [(row.clean, row.eps_255) for row in rows] == [(True, 0.0), (False, 0.0)]


def test_a_torn_last_line_is_skipped_with_a_warning(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    whole = load_rows(folder)
    path = folder / "results.jsonl"
    path.write_text(path.read_text() + '{"metric": "accuracy", "val')
    with caplog.at_level(logging.WARNING):
        assert load_rows(folder) == whole
    assert "cut off" in caplog.text


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("not json", "not JSON"),
        ('{"metric": "accuracy"}', "lacks 'value'"),
        ("[1, 2]", "no result row"),
        (json.dumps(found_runs.row(float("nan"))), "nan"),
        (json.dumps(found_runs.row(0.5, n=0)), "n=0"),
    ],
)
def test_a_line_that_is_no_row_is_named(tmp_path: Path, line: str, why: str) -> None:
    (tmp_path / "results.jsonl").write_text(f"{json.dumps(found_runs.row())}\n{line}\n{json.dumps(found_runs.row())}\n")
    with pytest.raises(UserError, match="line 2") as error:
        load_rows(tmp_path)
    assert why in str(error.value)


@pytest.mark.parametrize("content", [None, "", "\n"])
def test_a_folder_without_results_is_an_error_that_names_it(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "results.jsonl").write_text(content)
    with pytest.raises(UserError, match=str(tmp_path)):
        load_rows(tmp_path)


def test_curves_leave_out_empty_cells_and_a_torn_last_line(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("step,train/loss,train/zero_gradient\n1,4.0,\n2,3.5,0.1\n3,3.0,\n4,2.")
    curves = load_curves(tmp_path)
    assert curves["train/loss"][0].tolist() == [1, 2, 3]
    assert curves["train/loss"][1].tolist() == [4.0, 3.5, 3.0]
    assert [values.tolist() for values in curves["train/zero_gradient"]] == [[2], [0.1]]


def test_nothing_trained_gives_no_curves_and_nothing_kept_no_evidence(tmp_path: Path) -> None:
    assert load_curves(tmp_path) == {}
    assert load_evidence(tmp_path) == {}


def test_damaged_files_are_named(folder: Path) -> None:
    (folder / "metrics.csv").write_text("step,train/loss\n1,much\n")
    (folder / "status.json").write_text("{")
    archive = folder / "evidence-before.npz"
    archive.write_bytes(archive.read_bytes()[:2000])
    for load, name in ((load_curves, "metrics.csv"), (load_status, "status.json"), (load_evidence, "evidence-before")):
        with pytest.raises(UserError, match=name):
            load(folder)


def test_evidence_without_pictures_keeps_its_scores(tmp_path: Path) -> None:
    np.savez(tmp_path / "evidence-before.npz", **{"scores/mcm/test": np.arange(3.0)})
    evidence = load_evidence(tmp_path)["before"]
    assert evidence.pictures is None
    assert evidence.scores["mcm"]["test"].tolist() == [0, 1, 2]


def test_a_prediction_without_a_class_name_is_refused(folder: Path) -> None:
    path = folder / "evidence-after.npz"
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    np.savez(path, **{**arrays, "pictures/label": arrays["pictures/label"] + 5})
    with pytest.raises(UserError, match="do not fit together"):
        load_evidence(folder)


def test_a_stronger_attack_that_leaves_more_standing_is_doubted() -> None:
    weak, strong = found_runs.row(0.30, **ATTACKED), found_runs.row(0.31, **STRONGER)
    (sentence,) = doubts(parsed(weak, strong))
    assert "31.0 %" in sentence
    assert doubts(parsed(weak, {**strong, "value": 0.30})) == []
    assert doubts(parsed(weak, {**strong, "n": 100})) == [], "other pictures do not compare"
    assert doubts(parsed(weak, {**strong, "stage": "after"})) == []
    assert doubts(parsed(weak, {**strong, "attack": {**found_runs.APGD, "eps_255": 2.0}})) == []


def test_a_gradient_that_leaves_more_standing_than_square_is_doubted() -> None:
    square = {"kind": "square", "norm": "linf", "eps_255": 4.0, "queries": 5000}
    blind = found_runs.row(0.30, attack=square, attack_name="square")
    for attack in (ATTACKED, STRONGER):
        (sentence,) = doubts(parsed(blind, found_runs.row(0.303, **attack)))
        assert "Square, L-inf 4/255 30.0 %" in sentence
        assert doubts(parsed(blind, found_runs.row(0.301, **attack))) == [], "AutoAttack forgives 0.2 points"
        assert doubts(parsed(blind, found_runs.row(0.2, **attack))) == []


@pytest.mark.parametrize(
    ("weaker", "stronger"),
    [
        ({"kind": "pgd"}, {"kind": "apgd"}),
        ({"kind": "apgd"}, {"kind": "auto_attack", "version": "standard", "attacks": []}),
        ({"kind": "pgd"}, {"kind": "auto_attack", "version": "rand", "attacks": []}),
        ({"kind": "apgd_t"}, {"kind": "auto_attack", "version": "custom", "attacks": ["apgd-t", "apgd-ce"]}),
    ],
)
def test_which_of_two_attacks_is_the_stronger(weaker: dict, stronger: dict) -> None:
    def row(value: float, attack: dict, steps: int = 20) -> dict:
        setting = {"norm": "linf", "eps_255": 4.0, "steps": steps, **attack}
        return found_runs.row(value, attack=setting, attack_name=attack["kind"])

    assert len(doubts(parsed(row(0.3, weaker), row(0.4, stronger)))) == 1
    assert doubts(parsed(row(0.4, weaker), row(0.3, stronger))) == []
    assert doubts(parsed(row(0.3, weaker, steps=100), row(0.4, stronger))) == [], "fewer steps do not compare"


def test_a_reason_is_told_once_with_all_its_attacks() -> None:
    checks = {"checks": {"suspect": ["gradients are zero"]}}
    sweep = found_runs.row(0.5, attack=found_runs.PGD, attack_name="sweep", **checks)
    rows = parsed(*(found_runs.row(0.3, **attack, **checks) for attack in (ATTACKED, STRONGER, ATTACKED)), sweep)
    attacks = "PGD-20, L-inf 4/255; APGD-CE + APGD-T, L-inf 4/255; the curve over eps"
    assert doubts(rows) == [f"before: {attacks}: gradients are zero."]


def test_accuracy_that_rises_with_the_radius_is_doubted() -> None:
    def sweep(eps: float, value: float) -> dict:
        return found_runs.row(value, attack={**found_runs.PGD, "eps_255": eps}, attack_name="sweep")

    assert doubts(parsed(sweep(4, 0.2), sweep(2, 0.5), sweep(8, 0.2))) == []
    (sentence,) = doubts(parsed(sweep(4, 0.2), sweep(2, 0.5), sweep(8, 0.3)))
    assert "4/255 and 8/255" in sentence


def test_only_what_was_looked_at_is_claimed() -> None:
    assert examined(parsed(found_runs.row())) == []
    assert len(examined(parsed(found_runs.row(**ATTACKED, checks={"zero_gradient": 0.0})))) == 1
    assert len(examined(parsed(*found_runs.rows()))) == 3


def test_the_headline_tells_gains_and_losses_alike() -> None:
    def told(clean: float, robust: float) -> str:
        return headline(
            parsed(
                found_runs.row(0.9, n=9999),
                found_runs.row(clean, n=9999, stage="after"),
                found_runs.row(0.2, n=9999, **ATTACKED),
                found_runs.row(robust, n=9999, stage="after", **ATTACKED),
            )
        )

    assert told(0.85, 0.5) == (
        "Fine-tuning raised accuracy under PGD-20, L-inf 4/255 by 30.0 points (20.0 % to 50.0 %, n = 9,999) "
        "and cost 5.0 points of clean accuracy (90.0 % to 85.0 %, n = 9,999)."
    )
    assert "lowered accuracy under PGD-20, L-inf 4/255 by 10.0 points" in told(0.9, 0.1)
    assert "gained 5.0 points of clean accuracy" in told(0.95, 0.1)
    assert "left clean accuracy where it was" in told(0.9, 0.1)


def test_the_headline_tells_what_vaccination_brought() -> None:
    auroc = {"metric": "auroc", "split": "near", "level": None, "n": 50}
    known = [found_runs.row(0.8, score="msp", stage=stage, **auroc) for stage in ("before", "after")]
    own = found_runs.row(0.9, score="s_dis", stage="after", **auroc)
    told = "After vaccination, S_DIS AUROC on near-OOD is 90.0 %, n = 50."
    assert told in headline(parsed(*known, own))
    assert "vaccination" not in headline(parsed(*known))


def test_the_headline_warns_of_suspect_figures_and_of_intervals_that_overlap() -> None:
    checks = {"suspect": ["gradients are zero"]}
    rows = parsed(found_runs.row(0.50, **ATTACKED), found_runs.row(0.52, stage="after", checks=checks, **ATTACKED))
    assert "suspect: gradients are zero)" in headline(rows)
    assert "intervals before and after overlap" in headline(rows)
    many = {"checks": {"suspect": ["gradients are zero", "outputs are random", "Square finds more"]}}
    rows = parsed(found_runs.row(0.50, **ATTACKED), found_runs.row(0.52, stage="after", **many, **ATTACKED))
    assert "suspect: gradients are zero, and 2 more)" in headline(rows)


def test_one_stage_is_told_without_any_word_on_fine_tuning() -> None:
    told = headline(parsed(found_runs.row(0.9), found_runs.row(0.2, **ATTACKED)))
    first, second = "Accuracy under PGD-20, L-inf 4/255 was 20.0 %", "Clean accuracy was 90.0 %"
    assert told == f"{first}, n = 200 (before). {second}, n = 200 (before)."


def test_the_open_world_cost_is_told_only_where_it_was_measured() -> None:
    def auroc(value: float, stage: str) -> dict:
        return found_runs.row(value, metric="auroc", split="near", score="mcm", level=None, stage=stage)

    assert cost(parsed(found_runs.row(), found_runs.row(stage="after"))) == ""
    assert cost(parsed(auroc(0.8, "before"))) == ""
    assert "up to 3.0 points" in cost(parsed(auroc(0.8, "before"), auroc(0.77, "after")))
    better = parsed(auroc(0.8, "before"), auroc(0.83, "after"))
    assert cost(better).startswith("On no split")
    assert open_world(better) == ["MCM, near-OOD: AUROC rises from 80.0 % to 83.0 %."]


def test_the_same_name_and_radius_in_two_norms_are_two_measurements(tmp_path: Path) -> None:
    both = [
        found_runs.row(0.3, attack={**found_runs.PGD, "norm": norm}, attack_name="pgd20@4") for norm in ("linf", "l2")
    ]
    assert len(load_rows(save(tmp_path, *both))) == 2
