"""Selective metrics, intervals and detection metrics against independent formulations, with ties."""

import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score, roc_curve

from lightning_modules.metrics import aurc, auroc_interval, h_score, open_set_accuracy
from lightning_modules.metrics.ood import aupr, auroc, fpr_at_recall

few = st.lists(st.integers(0, 4), min_size=1, max_size=30).map(lambda values: torch.tensor(values).float())
many = st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=30).map(torch.tensor)
scores = st.one_of(few, many)


@settings(deadline=None, max_examples=50)
@given(scores, scores)
def test_auroc_by_four_formulations(inside: torch.Tensor, outside: torch.Tensor) -> None:
    """Pairs, mid-ranks (Mann-Whitney), the curve's trapezoids, and scikit-learn."""
    p, n = inside.numpy().astype(np.float64), outside.numpy().astype(np.float64)
    everything = np.concatenate([p, n])
    ranks = np.array([(everything < each).sum() + ((everything == each).sum() + 1) / 2 for each in p])
    thresholds = [np.inf, *sorted(set(everything), reverse=True)]
    hits = [(p >= each).mean() for each in thresholds]
    alarms = [(n >= each).mean() for each in thresholds]
    formulations = [
        np.mean([(a > b) + 0.5 * (a == b) for a in p for b in n]),
        (ranks.sum() - len(p) * (len(p) + 1) / 2) / (len(p) * len(n)),
        np.trapezoid(hits, alarms),
        roc_auc_score(np.arange(len(everything)) < len(p), everything),
    ]
    assert formulations == pytest.approx([auroc(inside, outside).item()] * 4, abs=1e-9)


@settings(deadline=None, max_examples=50)
@given(scores, scores)
def test_aupr_and_fpr_by_four_formulations(inside: torch.Tensor, outside: torch.Tensor) -> None:
    p, n = inside.numpy().astype(np.float64), outside.numpy().astype(np.float64)
    everything, truth = np.concatenate([p, n]), np.arange(len(inside) + len(outside)) < len(inside)
    thresholds = sorted(set(everything), reverse=True)
    recalls = np.array([0.0] + [(p >= each).mean() for each in thresholds])
    precisions = [(p >= each).sum() / (everything >= each).sum() for each in thresholds]
    precision, recall, _ = precision_recall_curve(truth, everything)
    average = [
        np.mean([(p >= each).sum() / (everything >= each).sum() for each in p]),
        np.sum(np.diff(recalls) * precisions),
        -np.sum(np.diff(recall) * precision[:-1]),
        average_precision_score(truth, everything),
    ]
    assert average == pytest.approx([aupr(inside, outside).item()] * 4, abs=1e-9)
    alarms, hits, _ = roc_curve(truth, everything, drop_intermediate=False)
    enough = -(-95 * len(p) // 100)
    false_alarms = [
        min((n >= each).mean() for each in thresholds if (p >= each).mean() >= 0.95),
        (n >= np.sort(p)[::-1][enough - 1]).mean(),
        (n >= np.quantile(p, 0.05, method="inverted_cdf") if len(p) < 20 else n >= np.sort(p)[len(p) - enough]).mean(),
        alarms[np.argmax(hits >= 0.95)],
    ]
    assert false_alarms == pytest.approx([fpr_at_recall(inside, outside).item()] * 4, abs=1e-9)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=1, max_size=40))
def test_aurc_is_the_mean_risk_over_coverages(samples: list[tuple[int, bool]]) -> None:
    values, right = (torch.tensor(column) for column in zip(*samples, strict=True))
    risks = []
    for own, _ in samples:
        answered = [each for value, each in samples if value >= own]
        risks.append(answered.count(False) / len(answered))
    assert aurc(values.float(), right).item() == pytest.approx(sum(risks) / len(risks), abs=1e-12)


def test_aurc_of_an_order_without_ties_is_that_of_the_curve() -> None:
    right = torch.tensor([True, True, False, True, False])
    scores = torch.tensor([5.0, 4.0, 3.0, 2.0, 1.0])
    assert aurc(scores, right).item() == pytest.approx((0 + 0 + 1 / 3 + 1 / 4 + 2 / 5) / 5)
    assert aurc(-scores, right) > aurc(scores, right)


def test_h_score_is_between_its_parts_and_needs_both() -> None:
    accuracy, area_under = torch.tensor([0.821, 0.0, 0.0, 0.5]), torch.tensor([0.894, 0.9, 0.0, 0.5])
    expected = torch.tensor([2 / (1 / 0.821 + 1 / 0.894), 0.0, 0.0, 0.5])
    torch.testing.assert_close(h_score(accuracy, area_under), expected)


def test_open_set_accuracy_counts_what_is_dealt_with_rightly() -> None:
    table = {  # right, accepted, is_ood -> as it should be
        (True, True, False): True,
        (True, False, False): False,
        (False, True, False): False,
        (False, False, False): False,
        (True, True, True): False,
        (False, False, True): True,
        (True, False, True): True,
    }
    for case, wanted in table.items():
        right, accepted, is_ood = (torch.tensor([each]) for each in case)
        assert open_set_accuracy(right, accepted, is_ood).item() == float(wanted)
    columns = [torch.tensor(column) for column in zip(*table, strict=True)]
    assert open_set_accuracy(*columns).item() == pytest.approx(3 / 7)


def gaussian(count: int, mean: float, seed: int) -> torch.Tensor:
    return torch.randn(count, generator=torch.Generator().manual_seed(seed)) + mean


@pytest.mark.parametrize("rounded", [False, True])
def test_bootstrap_is_that_of_a_loop(rounded: bool) -> None:
    inside, outside = gaussian(60, 1.0, 1), gaussian(80, 0.0, 2)
    if rounded:
        inside, outside = inside.round(), outside.round()
    own = auroc_interval(inside, outside, resamples=4000)
    random = np.random.default_rng(0)
    drawn = [auroc(inside[random.integers(0, 60, 60)], outside[random.integers(0, 80, 80)]).item() for _ in range(4000)]
    assert own == pytest.approx(np.quantile(drawn, [0.025, 0.975]).tolist(), abs=0.01)


def test_bootstrap_is_seeded_leaves_global_state_and_narrows() -> None:
    inside, outside = gaussian(50, 1.0, 1), gaussian(50, 0.0, 2)
    before = torch.get_rng_state()
    low, high = auroc_interval(inside, outside, resamples=200)
    assert torch.equal(torch.get_rng_state(), before)
    assert (low, high) == auroc_interval(inside, outside, resamples=200)
    assert (low, high) != auroc_interval(inside, outside, resamples=200, seed=1)
    assert low < auroc(inside, outside).item() < high
    more = auroc_interval(gaussian(5000, 1.0, 1), gaussian(5000, 0.0, 2), resamples=200)
    assert more[1] - more[0] < (high - low) / 5
    assert auroc_interval(inside + 100, outside, resamples=20) == (1.0, 1.0)


def test_bootstrap_covers_the_truth_about_as_often_as_it_says() -> None:
    truth = 0.5 * (1 + torch.erf(torch.tensor(0.5))).item()  # P(N(1, 1) > N(0, 1)) = Phi(1 / sqrt 2)
    hits = 0
    for trial in range(100):
        low, high = auroc_interval(gaussian(60, 1.0, 2 * trial), gaussian(60, 0.0, 2 * trial + 1), resamples=200)
        hits += low <= truth <= high
    assert 88 <= hits <= 99


def test_bootstrap_is_quick() -> None:
    began = time.process_time()
    auroc_interval(gaussian(2000, 1.0, 1), gaussian(2000, 0.0, 2), resamples=1000)
    assert time.process_time() - began < 1.0
