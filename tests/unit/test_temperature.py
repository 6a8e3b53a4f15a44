"""A classifier's temperature: the likelihood's own, and what it does to confidence on samples it was not fitted to."""

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_modules.open_world.adapter import Adapter
from lightning_modules.open_world.immunity import Immunity
from lightning_modules.open_world.temperature import LIMIT, fit_temperature

CLASSES, DIMENSION, TRUE = 7, 16, 0.05  # logits twenty times too small, as cosines with a small kappa are


def drawn(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Logits, and labels that follow their posterior at the true temperature."""
    generator = torch.Generator().manual_seed(seed)
    logits = 0.1 * torch.randn(count, CLASSES, generator=generator)
    return logits, torch.multinomial((logits / TRUE).softmax(dim=1), 1, generator=generator).flatten()


def calibration_error(posterior: Tensor, labels: Tensor, bins: int = 10) -> float:
    """Of the confidence, in bins of equal width, weighted by their samples."""
    confidence, classes = posterior.max(dim=1)
    gaps = (classes == labels).double() - confidence.double()
    places = (confidence * bins).long().clamp_max(bins - 1)
    return sum(abs(float(gaps[places == place].sum())) for place in range(bins)) / len(labels)


def test_it_is_that_of_the_largest_likelihood() -> None:
    logits, labels = drawn(500, 0)
    found = fit_temperature(logits, labels)
    grid = [F.cross_entropy(logits.double() / (found * factor), labels) for factor in (0.98, 1.0, 1.02)]
    assert grid[1] < min(grid[0], grid[2])
    assert fit_temperature(3 * logits, labels) == pytest.approx(3 * found, rel=1e-5)
    assert fit_temperature(logits + 5, labels) == pytest.approx(found, rel=1e-3)


def test_it_is_found_again_and_lowers_the_error_on_other_samples() -> None:
    found = fit_temperature(*drawn(5000, 1))
    assert found == pytest.approx(TRUE, rel=0.1)
    logits, labels = drawn(5000, 2)
    before, after = (calibration_error((logits / each).softmax(dim=1), labels) for each in (1.0, found))
    assert after < 0.03 < 0.2 < before


def test_it_is_bounded_where_all_samples_are_right_or_wrong() -> None:
    logits = torch.eye(CLASSES)
    sure, unsure = (fit_temperature(logits, torch.arange(CLASSES).roll(shift)) for shift in (0, 1))
    assert 1 / LIMIT <= sure < unsure <= LIMIT * (1 + 1e-9)
    confidences = [(logits / each).softmax(dim=1).amax(dim=1) for each in (sure, unsure)]
    assert bool((confidences[0] > 0.999).all())
    assert bool((confidences[1] < 1.01 / CLASSES).all())


def test_it_changes_confidence_and_nothing_else(tmp_path: Path) -> None:
    """And it is kept in the file; files from before it was fitted have a temperature of 1."""
    generator = torch.Generator().manual_seed(3)
    points = F.normalize(torch.randn(CLASSES + 5, DIMENSION, generator=generator), dim=1)
    names = [str(number) for number in range(CLASSES)]
    owners = torch.full((5,), -1)
    model = Immunity(
        Adapter(DIMENSION, 4), points[:CLASSES], torch.full((CLASSES,), 2.0), points[CLASSES:], owners,
        class_names=names,
    ).eval()  # fmt: skip
    embeddings = torch.randn(200, DIMENSION, generator=generator)
    model.calibrate(embeddings, tail=0.2, rejected=0.05, tail_samples=5)
    before = [method(embeddings) for method in (model.classify, model.score, model.accept, model.recalibrated)]
    flat = model.posterior(model.adapt(embeddings)).amax(dim=1)
    model.temperature = 0.1
    after = [method(embeddings) for method in (model.classify, model.score, model.accept, model.recalibrated)]
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))
    assert bool((model.posterior(model.adapt(embeddings)).amax(dim=1) > flat).all())
    model.save(tmp_path)
    assert Immunity.load(tmp_path).temperature == 0.1
    settings = json.loads((tmp_path / "immunity.json").read_text())
    del settings["temperature"]
    (tmp_path / "immunity.json").write_text(json.dumps(settings))
    assert Immunity.load(tmp_path).temperature == 1
