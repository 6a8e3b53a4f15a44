"""`bench antibodies` on a small world: every promise is measured, and rivals that disagree are an error."""

import math

import pytest
import torch

from experiments.bench import antibodies
from experiments.bench.negatives import grouped_softmax
from experiments.bench.targets import TARGETS

SMALL = {"CLASSES": 20, "TEXTS": 500, "IMAGES": 64, "WIDTH": 32, "SHOTS": 4, "JOINT_IMAGES": 16, "ROUNDS": 1}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SMALL.items():
        monkeypatch.setattr(antibodies, name, value)


@pytest.mark.usefixtures("small")
def test_every_promise_is_measured() -> None:
    rows = {row.name: row for row in antibodies.measure()}
    assert set(rows) == {name for name in TARGETS if " images: " in name}
    assert all(row.ratio is not None and math.isfinite(row.ratio) and row.ratio > 0 for row in rows.values())


@pytest.mark.usefixtures("small")
def test_a_rival_with_another_score_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def other(*given: object) -> torch.Tensor:
        return grouped_softmax(*given) + 0.01  # type: ignore[arg-type]

    monkeypatch.setattr(antibodies, "grouped_softmax", other)
    with pytest.raises(AssertionError, match="not close"):
        antibodies.measure()
