"""What is kept of an open-world measurement, sample by sample, against its figures and a plain computation."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from test_detection import GROUPS, NAMES, PGD, Toy, batches, config, measured, parts, value

from configs.schema import scores
from lightning_modules.open_world.adapter import Adapter
from lightning_modules.open_world.immunity import Immunity
from lightning_modules.probes import Row

CAPTIONS = ("hammer", "zebra", "violin", "dog on the moon")
OWNERS = (-1, 2, -1, 0)
Kept = dict[str, Any]


def vaccinated() -> Toy:
    model = Toy()
    texts = torch.nn.functional.normalize(model.embed_text([f"a {name}" for name in NAMES]), dim=1)
    antibodies = torch.nn.functional.normalize(model.embed_text(list(CAPTIONS)), dim=1)
    model.immunity = Immunity(
        Adapter(12, 8), texts, torch.full((4,), 10.0), antibodies, torch.tensor(OWNERS), class_names=NAMES,
        captions=CAPTIONS, lambda_inf=0.5,
    )  # fmt: skip
    return model


@pytest.fixture(scope="module")
def found() -> tuple[Sequence[Row], Kept]:
    wanted = {"largest": scores.MaxLogit(), "own": scores.SDis(recalibrated=False)}
    settings = config(scores=wanted, attacked_scores=["largest", "own"], attacks={"pgd": PGD})
    rows, module = measured(settings, model=vaccinated())
    return rows, module.evidence()


def area(inside: np.ndarray, outside: np.ndarray) -> float:
    truth = np.r_[np.ones(len(inside)), np.zeros(len(outside))]
    return float(roc_auc_score(truth, np.r_[inside, outside]))


@pytest.mark.parametrize("score", ["largest", "own"])
@pytest.mark.parametrize("split", list(GROUPS))
def test_attacked_scores_have_the_areas_of_the_rows(found: tuple[Sequence[Row], Kept], score: str, split: str) -> None:
    rows, kept = found
    inside, outside = (kept[f"attacked_scores/{score}/{each}"] for each in ("test", split))
    worst = {"metric": "auroc", "score": score, "split": split}
    assert area(inside[:, 1], outside[:, 1]) == pytest.approx(value(rows, attack_name="worst@both", **worst), abs=1e-9)
    assert (inside[:, 1] <= inside[:, 0]).all()
    assert (outside[:, 1] >= outside[:, 0]).all()


def test_the_nearest_antibody_is_that_of_the_largest_cosine(found: tuple[Sequence[Row], Kept]) -> None:
    _, kept = found
    model = vaccinated()
    assert model.immunity is not None
    clean = [part for part in parts(None) if part.split != "val"]
    for part, (batch,) in zip(clean, batches(clean), strict=True):
        points = model.immunity.adapt(model.embed_image(batch["image"]))
        expected = (points @ model.immunity.antibodies.T).argmax(1)
        assert kept[f"antibodies/{part.split}"].tolist() == expected.tolist()
    assert tuple(kept["captions"]) == CAPTIONS
    assert kept["owners"] == ["", "cat", "", "dog"]


def test_under_attack_the_clean_picture_comes_first(found: tuple[Sequence[Row], Kept]) -> None:
    _, kept = found
    for split in ("test", *GROUPS):
        pair = kept[f"attacked_antibodies/{split}"]
        assert pair[:, 0].tolist() == kept[f"antibodies/{split}"][: len(pair)].tolist()
        assert set(np.unique(pair)) <= set(range(len(CAPTIONS)))


def test_a_model_without_antibodies_keeps_none() -> None:
    _, module = measured(config(attacks={}, attacked_scores=[]))
    assert not [name for name in module.evidence() if "antibodies" in name or name in ("captions", "owners")]
