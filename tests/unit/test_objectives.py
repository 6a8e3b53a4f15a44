"""Objectives against their formulas, and which embeddings their gradients reach."""

import pytest
import torch

from configs.schema import objective as schema
from lightning_modules.heads import CosineHead
from lightning_modules.hierarchy import Forest
from lightning_modules.objectives import FARE, Embedded, Objective, TeCoA, Views, build

CPU = torch.device("cpu")
FOREST = Forest(tuple("abcdefg"))


@pytest.fixture
def texts() -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(7, 5, generator=torch.Generator().manual_seed(0)), dim=1)


@pytest.fixture
def embeddings() -> torch.Tensor:
    return torch.randn(2, 4, 5, generator=torch.Generator().manual_seed(1)) * 3


def made(config: schema.Objective, scale: torch.Tensor | float = 20.0) -> Objective:
    return build(config, CosineHead(scale), FOREST, CPU)


def test_tecoa(texts: torch.Tensor, embeddings: torch.Tensor) -> None:
    labels = torch.tensor([0, 3, 6, 1])
    objective = made(schema.TeCoA(clean_weight=0.5))
    assert (objective.needs.reference, objective.needs.clean) == (False, True)
    target = objective.target(labels, None, None, texts)
    by_hand = []
    for branch in embeddings:
        cosines = torch.stack([torch.stack([image @ text / image.norm() for text in texts]) for image in branch])
        by_hand.append(-(20 * cosines).log_softmax(1)[range(4), labels])
    torch.testing.assert_close(objective.inner(embeddings[0], target, texts), by_hand[0])
    views = Views(*(Embedded(branch) for branch in embeddings))
    loss, parts = objective.outer(views, labels, texts)
    torch.testing.assert_close(loss, by_hand[0].mean() + 0.5 * by_hand[1].mean())
    torch.testing.assert_close(parts, {"adversarial": by_hand[0].mean(), "clean": by_hand[1].mean()})
    scaled = made(schema.TeCoA()).inner(embeddings[0] * 9, labels, texts)
    torch.testing.assert_close(scaled, by_hand[0])  # an embedding's length does not matter


def test_tecoa_scale(texts: torch.Tensor, embeddings: torch.Tensor) -> None:
    own = torch.tensor(20.0, requires_grad=True)
    labels = torch.tensor([0, 3, 6, 1])
    assert not made(schema.TeCoA(), own).inner(embeddings[0], labels, texts).requires_grad
    fixed = made(schema.TeCoA(logit_scale=100.0), own).inner(embeddings[0], labels, texts)
    torch.testing.assert_close(fixed, made(schema.TeCoA(), 100.0).inner(embeddings[0], labels, texts))


def test_fare(embeddings: torch.Tensor, texts: torch.Tensor) -> None:
    reference = torch.ones(4, 5)
    objective = made(schema.FARE(clean_weight=2.0))
    assert (objective.needs.reference, objective.needs.clean) == (True, True)
    labels = torch.zeros(4, dtype=torch.int64)
    adversarial, clean = embeddings[0].clone().requires_grad_(), embeddings[1].clone().requires_grad_()
    distance = [sum((image - 1).pow(2).sum().item() for image in branch) / 4 for branch in embeddings]
    views = Views(Embedded(adversarial), Embedded(clean), Embedded(reference))
    loss, parts = objective.outer(views, labels, texts)
    assert loss.item() == pytest.approx(distance[0] + 2 * distance[1])
    assert parts["clean"].item() == pytest.approx(distance[1])
    loss.backward()
    torch.testing.assert_close(adversarial.grad, 2 * (embeddings[0] - 1) / 4)
    torch.testing.assert_close(clean.grad, 2 * 2 * (embeddings[1] - 1) / 4)
    assert torch.equal(objective.target(labels, None, reference, texts), reference)


@pytest.mark.parametrize("objective", [FARE(), TeCoA(CosineHead(10.0))])
def test_without_a_clean_branch(objective: Objective, embeddings: torch.Tensor) -> None:
    labels, texts = torch.arange(4), torch.eye(5)
    target = objective.target(labels, None, embeddings[1], texts)
    loss, parts = objective.outer(Views(Embedded(embeddings[0]), reference=Embedded(embeddings[1])), labels, texts)
    assert not objective.needs.clean
    assert list(parts) == ["adversarial"]
    torch.testing.assert_close(loss, objective.inner(embeddings[0], target, texts).mean())
