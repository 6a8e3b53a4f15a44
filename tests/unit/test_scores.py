"""Open-world scores against their formulas and their order."""

import math

import pytest
import torch

from lightning_modules.open_world import SCORES, mcm


@pytest.mark.parametrize("temperature", [0.01, 0.5, 1.0])
def test_mcm_formula(temperature: float) -> None:
    cosines = torch.rand(20, 6, generator=torch.Generator().manual_seed(0)) * 2 - 1
    for row, score in zip(cosines.double().tolist(), mcm(cosines, temperature).tolist(), strict=True):
        exponentials = [math.exp(each / temperature) for each in row]
        assert score == pytest.approx(max(exponentials) / sum(exponentials), rel=1e-9)


@pytest.mark.parametrize("name", SCORES)
def test_a_clear_match_scores_higher_than_none(name: str) -> None:
    flat, peaked = torch.full((1, 10), 0.2), torch.full((1, 10), 0.2)
    peaked[0, 3] = 0.35
    for temperature in (0.01, 1.0):
        assert SCORES[name](peaked, temperature) > SCORES[name](flat, temperature)
    assert mcm(flat, 1.0).item() == pytest.approx(0.1)


def test_confident_samples_are_not_tied() -> None:
    """At the model's own temperature float32 would round both to 1."""
    cosines = torch.tensor([[0.9, 0.6], [0.9, 0.61]])
    sure, less = mcm(cosines, 0.01)
    assert sure > less
    assert sure.float() == less.float() == 1.0
