"""Which antibodies fired, and how scores spread, from what a measurement keeps."""

from pathlib import Path

import numpy as np
import pytest

from experiments.analysis import load_evidence
from experiments.analysis.fired import by_concept, changed, fired, hubs
from experiments.analysis.loading import Evidence
from experiments.analysis.spread import clean_and_attacked

SHOWN = ["wolf", "wolf", "wolf", "crane"]


@pytest.fixture
def kept(tmp_path: Path) -> Evidence:
    """As `detection.kept` writes it: four unknown pictures, of which the first two are attacked, and two known ones."""
    random = np.random.default_rng(0)
    np.savez(
        tmp_path / "evidence-after.npz",
        captions=["coyote", "leaf"],
        owners=["dog", ""],
        **{"antibodies/near": np.array([0, 1, 0, 1]), "antibodies/test": np.array([1, 1])},
        **{"attacked_antibodies/near": np.array([[0, 1], [1, 1]]), "attacked_shown/near": SHOWN[:2]},
        **{"shown/near": SHOWN},
        **{"scores/own/test": random.random(2), "scores/own/near": random.random(4)},
        **{"attacked_scores/own/test": random.random((2, 2)), "attacked_scores/own/near": random.random((2, 2))},
    )  # fmt: skip
    return load_evidence(tmp_path)["after"]


def test_a_line_a_picture(kept: Evidence) -> None:
    table = fired(kept)
    near = table.query("split == 'near' and image == 'clean'")
    assert near["antibody"].tolist() == ["coyote", "leaf", "coyote", "leaf"]
    assert near["of class"].tolist() == ["dog", "", "dog", ""]
    assert near["shown"].tolist() == SHOWN
    assert table.query("image == 'attacked'")["antibody"].tolist() == ["leaf", "leaf"]
    assert table.query("split == 'test'")["shown"].tolist() == ["", ""]
    assert len(table) == 4 + 2 + 2


def test_the_most_frequent_by_concept_and_over_all(kept: Evidence) -> None:
    clean = fired(kept).query("image == 'clean'")
    assert by_concept(clean).loc[("near", "wolf")].tolist() == ["coyote", 2, 3]
    found = hubs(clean)
    assert found.loc["test"].tolist() == [1, "leaf", 1.0]
    assert found.loc["near", "share"] == 0.5
    assert changed(kept).to_numpy().tolist() == [["near", 0.5, 2]]


def test_without_antibodies_there_are_no_lines() -> None:
    blank = Evidence({}, None)
    assert len(fired(blank)) == len(changed(blank)) == 0
    assert clean_and_attacked(blank, ["own"]) is None


def test_histograms_share_an_axis_and_add_up_to_one(kept: Evidence) -> None:
    drawing = clean_and_attacked(kept, ["own", "other"])
    assert drawing is not None
    left, right = drawing.axes
    assert left.get_xlim() == right.get_xlim()
    assert left.get_ylim() == right.get_ylim()
    for axes in (left, right):
        assert [patch.get_data().values.sum() for patch in axes.patches] == pytest.approx([1.0, 1.0])
