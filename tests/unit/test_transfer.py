"""The transfer matrix: every figure at its place, in any order of the runs, and nothing that was not measured."""

import random

import found_runs
import numpy as np
import pytest

from configs.errors import UserError
from experiments.analysis import Row, transfer_matrix

DATASETS = ("shapes", "shapes: aa on 1234-s0 before", "shapes: aa on 5678-s0 after")


def measured(share: float, dataset: str, **fields: object) -> Row:
    return Row.parse(found_runs.row(share, dataset=dataset, **fields))


def test_every_figure_is_at_its_place() -> None:
    shares = {(name, dataset): random.Random(f"{name}{dataset}").random() for name in "abc" for dataset in DATASETS}
    del shares["b", DATASETS[1]]
    runs: dict[str, list[Row]] = {}
    for (name, dataset), share in random.Random(0).sample(sorted(shares.items()), len(shares)):
        attacked = measured(0.01, dataset, attack=found_runs.PGD, attack_name="pgd20")
        runs.setdefault(name, []).extend(
            [measured(share, dataset), attacked, measured(1.0, dataset, level=1, tree="t")]
        )
    found = transfer_matrix(runs)
    assert sorted(found.datasets) == sorted(DATASETS)
    assert sorted(found.models) == ["a", "b", "c"]
    for row, dataset in enumerate(found.datasets):
        for column, name in enumerate(found.models):
            assert found.accuracy[row, column] == pytest.approx(shares.get((name, dataset), np.nan), nan_ok=True)
            assert (found.samples[row, column] == 0) == ((name, dataset) not in shares)
    lines = found.table().splitlines()
    assert len({len(line) for line in lines}) == 1
    assert {line.split("  ")[0].strip() for line in lines[1:]} == set(DATASETS)
    assert sum(line.count(" -") for line in lines) == 1


def test_stages_of_one_run_are_models_of_their_own() -> None:
    rows = [measured(0.9, "shapes"), measured(0.8, "shapes", stage="after")]
    found = transfer_matrix({"run": rows, "other": rows[:1]})
    assert found.models == ("run before", "run after", "other")
    assert found.accuracy.tolist() == [[0.9, 0.8, 0.9]]


def test_two_figures_for_one_place_and_none_at_all_are_refused() -> None:
    with pytest.raises(UserError, match="two clean accuracies on 'shapes'"):
        transfer_matrix({"run": [measured(0.9, "shapes"), measured(0.7, "shapes", seed=1)]})
    with pytest.raises(UserError, match="no clean accuracy"):
        transfer_matrix({"run": [measured(0.9, "shapes", attack=found_runs.PGD, attack_name="pgd20")]})
