"""Detection metrics against scikit-learn and against all pairs and all thresholds, with and without ties."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from configs.errors import UserError
from lightning_modules.metrics import OODDetection
from lightning_modules.metrics.ood import aupr, auroc, fpr_at_recall

few_values = st.lists(st.integers(0, 5), min_size=1, max_size=40).map(lambda v: torch.tensor(v, dtype=torch.float32))
any_values = st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=40).map(torch.tensor)
scores = st.one_of(few_values, any_values)


@settings(deadline=None, max_examples=150)
@given(scores, scores)
def test_all_pairs_and_thresholds(positives: torch.Tensor, negatives: torch.Tensor) -> None:
    p, n = positives.tolist(), negatives.tolist()
    pairs = [(a > b) + 0.5 * (a == b) for a in p for b in n]
    assert auroc(positives, negatives).item() == pytest.approx(sum(pairs) / len(pairs), abs=1e-12)
    operating, precision = [], {}
    for threshold in sorted(set(p + n)):
        true, false = sum(a >= threshold for a in p), sum(b >= threshold for b in n)
        operating.append((true / len(p), false / len(n)))
        precision[threshold] = true / (true + false)
    best = min(false for recall, false in operating if recall >= 0.95)
    assert fpr_at_recall(positives, negatives).item() == pytest.approx(best, abs=1e-12)
    assert aupr(positives, negatives).item() == pytest.approx(sum(precision[a] for a in p) / len(p), abs=1e-12)


@settings(deadline=None, max_examples=100)
@given(scores, scores)
def test_scikit_learn(inside: torch.Tensor, outside: torch.Tensor) -> None:
    metric = OODDetection()
    everything = torch.cat([inside, outside])
    is_ood = torch.arange(len(everything)) >= len(inside)
    metric.update(everything, is_ood, torch.ones_like(is_ood))
    values, labels = everything.numpy().astype(np.float64), (~is_ood).numpy().astype(int)

    def at_95(truth: np.ndarray, score: np.ndarray) -> float:
        false, true, _ = roc_curve(truth, score, drop_intermediate=False)
        return float(false[np.argmax(true >= 0.95)])

    expected = {
        "auroc": roc_auc_score(labels, values),
        "aupr_in": average_precision_score(labels, values),
        "aupr_out": average_precision_score(1 - labels, -values),
        "fpr95_id_pos": at_95(labels, values),
        "fpr95_ood_pos": at_95(1 - labels, -values),
    }
    assert {name: value.item() for name, value in metric.compute().items()} == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("count", [1, 19, 20, 21, 40, 60, 100, 980])
def test_recall_of_exactly_95_percent(count: int) -> None:
    """The threshold moves to the first positive at which the recall is reached, however 0.95 n rounds."""
    positives = torch.arange(count).float()
    kept = next(k for k in range(1, count + 1) if 20 * k >= 19 * count)
    negatives = torch.tensor([count - kept - 0.5, count - kept + 0.5])
    assert fpr_at_recall(positives, negatives).item() == 0.5


def test_the_two_orientations_differ() -> None:
    metric = OODDetection()
    metric.update(
        torch.tensor([0.0] + [2.0] * 19 + [1.0] * 20), torch.arange(40) >= 20, torch.ones(40, dtype=torch.bool)
    )
    values = metric.compute()
    assert (values["fpr95_id_pos"].item(), values["fpr95_ood_pos"].item()) == (0.0, 0.05)


def test_padding_and_batches_do_not_matter() -> None:
    generator = torch.Generator().manual_seed(0)
    scores, is_ood = torch.randn(30, generator=generator), torch.rand(30, generator=generator) > 0.5
    whole, parts = OODDetection(), OODDetection()
    whole.update(scores, is_ood, torch.ones(30, dtype=torch.bool))
    for start in range(0, 30, 7):
        part = slice(start, start + 7)
        padding = torch.tensor([99.0, float("nan")])
        valid = torch.arange(len(scores[part]) + 2) < len(scores[part])
        parts.update(torch.cat([scores[part], padding]), torch.cat([is_ood[part], padding > 0]), valid)
    assert whole.compute() == parts.compute()


@pytest.mark.parametrize("is_ood", [[], [True], [False, False]])
def test_one_kind_alone_is_an_error(is_ood: list[bool]) -> None:
    metric = OODDetection()
    kinds = torch.tensor(is_ood, dtype=torch.bool)
    metric.update(torch.ones(len(kinds)), kinds, torch.ones_like(kinds))
    with pytest.raises(UserError, match=f"{is_ood.count(False)} in-distribution and {is_ood.count(True)} OOD"):
        metric.compute()
