"""Weibull tails against scipy, and against the shares of samples that they are to turn away."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import weibull_min
from torch import Tensor

from configs.errors import DataError
from lightning_modules.open_world.weibull import Weibull, fit, fit_tails, log_tail


def draws(shape: float, scale: float, count: int, seed: int = 0) -> Tensor:
    uniform = torch.rand(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return scale * (-uniform.log()) ** (1 / shape)


def log_likelihood(values: Tensor, found: Weibull) -> float:
    return float(weibull_min.logpdf(values.numpy(), found.shape, scale=found.scale).sum())


@pytest.mark.parametrize("shape", [0.4, 1.0, 2.5, 12.0])
@pytest.mark.parametrize("scale", [1e-6, 0.03, 500.0])
def test_fit_equals_scipy(shape: float, scale: float) -> None:
    values = draws(shape, scale, 200)
    found = fit(values)
    expected_shape, _, expected_scale = weibull_min.fit((values / scale).numpy(), floc=0)
    assert found.shape == pytest.approx(expected_shape, rel=1e-3)  # scipy's optimiser stops there
    assert found.scale == pytest.approx(expected_scale * scale, rel=1e-3)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.floats(1e-3, 10), min_size=3, max_size=30, unique=True))
def test_no_neighbour_is_likelier(values: list[float]) -> None:
    sample = torch.tensor(values, dtype=torch.float64)
    if float(sample.max() / sample.min()) < 1.01:
        return  # the likelihood's peak is then narrower than the steps below
    found = fit(sample)
    best = log_likelihood(sample, found)
    for factor in (0.99, 1.01):
        assert log_likelihood(sample, found._replace(shape=found.shape * factor)) < best
        assert log_likelihood(sample, found._replace(scale=found.scale * factor)) < best


@pytest.mark.parametrize("values", [[], [1.0], [2.0, 2.0, 2.0], [0.0, 1.0], [-1.0, 1.0], [1.0, float("nan")]])
def test_what_has_no_fit_is_refused(values: list[float]) -> None:
    with pytest.raises(DataError, match="two different positive values"):
        fit(torch.tensor(values))


def test_ties_have_a_finite_fit() -> None:
    found = fit(torch.tensor([1.0] * 50 + [1.0 + 1e-6]))
    assert 0 < found.shape < float("inf")
    assert found.scale == pytest.approx(1.0, rel=1e-5)


SETTINGS = {"tail": 0.2, "rejected": 0.05, "tail_samples": 10}


def test_thresholds_turn_away_the_wanted_share_of_each_class() -> None:
    """Classes at different heights, of many samples: by the model's word and by the count of unseen ones."""
    classes = torch.arange(12_000) % 3
    scores = torch.randn(12_000, generator=torch.Generator().manual_seed(1)) * 0.05 + classes * 0.3
    tails = fit_tails(scores[:6000], classes[:6000], 3, **SETTINGS)
    assert not tails.pooled.any()
    fresh, owners = scores[6000:], classes[6000:]
    for number in range(3):
        turned_away = (fresh[owners == number] < tails.threshold[number]).double().mean()
        assert float(turned_away) == pytest.approx(0.05, abs=0.015)
    model = tails.mass.log() + log_tail(tails.threshold, tails.start, tails.scale, tails.shape)
    torch.testing.assert_close(model.exp(), torch.full((3,), 0.05), rtol=1e-3, atol=0)


def test_small_and_constant_classes_take_the_tail_of_all() -> None:
    random = torch.randn(400, generator=torch.Generator().manual_seed(2))
    scores = torch.cat([random, torch.full((200,), 0.3), random[:5] - 1])
    classes = torch.cat([torch.zeros(400), torch.ones(200), torch.full((5,), 2)]).long()
    tails = fit_tails(scores, classes, 4, **SETTINGS)  # class 3 has none at all
    assert tails.pooled.tolist() == [False, True, True, True]
    alone = fit_tails(scores, torch.zeros(605, dtype=torch.int64), 1, **SETTINGS)
    torch.testing.assert_close(tails.threshold[1:], alone.threshold.expand(3))
    assert tails.threshold[0] != tails.threshold[1]
    assert all(values.isfinite().all() for values in tails)


@pytest.mark.parametrize("scores", [torch.full((50,), 0.25), torch.tensor([0.1]), torch.tensor([])])
def test_no_tail_at_all_is_an_error(scores: Tensor) -> None:
    with pytest.raises(DataError, match="no tail to fit"):
        fit_tails(scores, torch.zeros(len(scores), dtype=torch.int64), 2, **SETTINGS)


def test_scores_that_are_no_numbers_are_an_error() -> None:
    with pytest.raises(DataError, match="not finite"):
        fit_tails(torch.tensor([0.1, float("nan")]), torch.tensor([0, 0]), 1, **SETTINGS)


@pytest.mark.parametrize("shape", [0.3, 1.0, 4.0])
def test_log_tail_keeps_the_order_and_has_a_gradient(shape: float) -> None:
    start, scale, shapes = torch.tensor(0.4), torch.tensor(0.1), torch.tensor(shape)
    scores = torch.linspace(-0.5, 1.0, 301, dtype=torch.float64).requires_grad_()
    found = log_tail(scores, start, scale, shapes)
    assert (found.diff() > 0).all()
    (gradient,) = torch.autograd.grad(found.sum(), scores)
    assert gradient.isfinite().all()
    below = scores.detach() < 0.39
    expected = -(((start - scores.detach()[below]) / scale) ** shapes)
    torch.testing.assert_close(found.detach()[below], expected)
