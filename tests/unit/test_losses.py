"""Losses against their definitions, written sample by sample, and at their boundaries."""

import math

import pytest
import torch

from configs.errors import UserError
from lightning_modules.attacks.losses import (
    cross_entropy,
    dlr,
    embedding_cosine,
    embedding_l2,
    margin,
    targeted_dlr,
    targeted_margin,
)


@pytest.fixture
def logits() -> torch.Tensor:
    return torch.randn(50, 6, generator=torch.Generator().manual_seed(0)) * 5 - 3


@pytest.fixture
def labels() -> torch.Tensor:
    return torch.arange(50) % 6


@pytest.fixture
def pair(labels: torch.Tensor) -> torch.Tensor:
    return torch.stack([labels, (labels + 1 + torch.arange(50) % 5) % 6], dim=1)


def test_definitions(logits: torch.Tensor, labels: torch.Tensor, pair: torch.Tensor) -> None:
    for row, (label, aim) in enumerate(pair.tolist()):
        z = logits[row].double().tolist()
        ranked = sorted(z, reverse=True)
        other = max(value for index, value in enumerate(z) if index != label)
        one = slice(row, row + 1)
        expected = {
            cross_entropy: math.log(sum(map(math.exp, z))) - z[label],
            margin: other - z[label],
            dlr: (other - z[label]) / (ranked[0] - ranked[2]),
        }
        for loss, value in expected.items():
            assert loss(logits[one], labels[one]).item() == pytest.approx(value, rel=1e-5, abs=1e-5)
        assert targeted_margin(logits[one], pair[one]).item() == pytest.approx(z[aim] - z[label], rel=1e-5)
        ratio = (z[aim] - z[label]) / (ranked[0] - (ranked[2] + ranked[3]) / 2)
        assert targeted_dlr(logits[one], pair[one]).item() == pytest.approx(ratio, rel=1e-5)


def test_margin_is_right_on_negative_logits() -> None:
    assert margin(torch.tensor([[-1.0, -5.0, -3.0]]), torch.tensor([0])).item() == -2.0


def test_margin_is_positive_exactly_where_misclassified(logits: torch.Tensor, labels: torch.Tensor) -> None:
    assert torch.equal(margin(logits, labels) > 0, logits.argmax(1) != labels)


def test_dlr_ignores_shift_and_scale(logits: torch.Tensor, labels: torch.Tensor, pair: torch.Tensor) -> None:
    torch.testing.assert_close(dlr(logits * 0.01 + 7, labels), dlr(logits, labels), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(targeted_dlr(logits * 0.01 + 7, pair), targeted_dlr(logits, pair), rtol=1e-3, atol=1e-3)


def test_few_classes() -> None:
    logits, labels = torch.tensor([[2.0, 1.0, -1.0]]), torch.tensor([0])
    with pytest.raises(UserError, match="at least 3 classes, got 2"):
        dlr(logits[:, :2], labels)
    assert dlr(logits, labels).item() == pytest.approx(-1 / 3)
    assert targeted_dlr(logits, torch.tensor([[0, 2]])).item() == -3.0  # the margin: there is no fourth class


@pytest.mark.parametrize("loss", [cross_entropy, margin, dlr])
@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_finite_values_and_gradients(loss, scale: float, logits: torch.Tensor, labels: torch.Tensor) -> None:
    logits = torch.cat([logits * scale, torch.zeros(1, 6)]).requires_grad_()
    values = loss(logits, torch.cat([labels, torch.tensor([0])]))
    values.sum().backward()
    assert values.isfinite().all()
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_outputs_give_float32_losses(dtype, logits, labels, pair) -> None:
    outputs = logits.to(dtype)
    for loss, target in ((cross_entropy, labels), (margin, labels), (dlr, labels), (targeted_dlr, pair)):
        value = loss(outputs, target)
        assert value.dtype == torch.float32
        assert torch.equal(value, loss(outputs.float(), target))
    assert embedding_l2(outputs, logits).dtype == embedding_cosine(outputs, logits).dtype == torch.float32


def test_embedding_losses() -> None:
    left, right = torch.tensor([[3.0, 4.0], [1.0, 0.0]]), torch.tensor([[0.0, 0.0], [-2.0, 0.0]])
    assert embedding_l2(left, right).tolist() == [25.0, 9.0]
    assert embedding_cosine(left, left * 7).tolist() == pytest.approx([0.0, 0.0], abs=1e-6)
    assert embedding_cosine(left[1:], right[1:]).tolist() == pytest.approx([2.0])
