"""Losses against their definitions, written sample by sample, and at their boundaries."""

import math
from functools import partial

import pytest
import torch

from configs.errors import ConfigError
from configs.schema import attack as schema
from lightning_modules.attacks import APGD, PGD, AutoAttack, fallbacks
from lightning_modules.attacks.losses import (
    LOSSES,
    cross_entropy,
    dlr,
    embedding_cosine,
    embedding_l2,
    margin,
    score_loss,
    superclass_cross_entropy,
    targeted_dlr,
    targeted_margin,
)
from lightning_modules.hierarchy.tree import Tree
from lightning_modules.open_world import mcm
from tests.unit.networks import convolutional, images, seeds


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
    assert dlr(logits[:, :2], labels).item() == -1.0  # the margin: there is no third class
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


TREE = Tree(
    "food",
    (("apple", "pear", "leek", "kale", "beef", "lamb"), ("fruit", "greens", "meat"), ("plant", "animal")),
    ((0, 0, 1, 1, 2, 2), (0, 0, 1)),
)


@pytest.mark.parametrize("level", [0, 1, 2])
def test_superclass_probabilities_are_sums_of_their_leaves(level: int, logits, labels) -> None:
    ancestors = TREE.ancestors(level)
    found = superclass_cross_entropy(ancestors)(logits, labels)
    leaves = logits.double().softmax(1)
    for row, label in enumerate(labels.tolist()):
        family = [leaf for leaf in range(6) if ancestors[leaf] == ancestors[label]]
        assert found[row].item() == pytest.approx(-math.log(leaves[row, family].sum()), rel=1e-4, abs=1e-6)
    if level == 0:
        torch.testing.assert_close(found, cross_entropy(logits, labels))


def test_superclass_loss_pulls_at_another_family_where_the_class_is_certain() -> None:
    """Plain cross-entropy in float32 rounds to 0 here, and its gradient mostly shuffles leaves within the family."""
    logits = torch.tensor([[30.0, 29.0, 0.0, 1.0, -5.0, -5.0]], requires_grad=True)
    loss = superclass_cross_entropy(TREE.ancestors(1))(logits, torch.tensor([0]))
    expected = math.log1p((1 + math.e + 2 * math.exp(-5)) / (math.exp(30) + math.exp(29)))
    assert loss.item() == pytest.approx(expected, rel=1e-4)
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    assert (gradient[0, :2] < 0).all()
    assert (gradient[0, 2:] > 0).all()


def test_superclass_loss_at_the_root_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least 2 classes, got 1"):
        superclass_cross_entropy(torch.zeros(6, dtype=torch.int64))


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_superclass_loss_is_finite(scale: float, logits, labels) -> None:
    scaled = (logits * scale).requires_grad_()
    values = superclass_cross_entropy(TREE.ancestors(2))(scaled, labels)
    values.sum().backward()
    assert values.isfinite().all()
    assert scaled.grad.isfinite().all()


def test_an_attack_on_a_level_crosses_more_families_than_one_on_the_leaf() -> None:
    model, clean = convolutional(6), images(64)
    labels, ancestors = model(clean).argmax(1), TREE.ancestors(2)

    def crossed(loss) -> int:
        attack = PGD("linf", 8 / 255, 2 / 255, 20)
        found = attack(lambda pixels: 30 * model(pixels), clean, labels, loss, seeds(64))
        return int((ancestors[model(found.pixels).argmax(1)] != ancestors[labels]).sum())

    assert crossed(superclass_cross_entropy(ancestors)) > crossed(cross_entropy)


@pytest.mark.parametrize(
    ("name", "classes", "used"),
    [
        ("ce", 2, "ce"),
        ("margin", 2, "margin"),
        ("dlr", 2, "margin"),
        ("dlr", 3, "dlr"),
        ("targeted_dlr", 2, "targeted_margin"),
        ("targeted_dlr", 3, "targeted_margin"),
        ("targeted_dlr", 4, "targeted_dlr"),
    ],
)
def test_fallbacks_are_named_and_run(name: str, classes: int, used: str) -> None:
    config = schema.TargetedAPGD() if name.startswith("targeted") else schema.APGD(loss=name)
    loss, told = LOSSES[name], fallbacks(config, classes)
    assert [each.split()[0] for each in told] == ([used] if used != name else [])
    target = torch.tensor([[0, 1]] * 3) if used.startswith("targeted") else torch.tensor([0, 1, 0])
    logits = torch.nn.functional.one_hot(torch.tensor([0, 1, 0]), classes) * 2 - torch.arange(1.0, classes + 1) / 9
    (gradient,) = torch.autograd.grad(loss(logits.requires_grad_(), target).sum(), logits)
    assert gradient[0, 0] < 0 < gradient[0, 1]
    assert torch.equal(loss(logits, target), LOSSES[used](logits, target))


def test_a_score_is_raised_or_lowered() -> None:
    with pytest.raises(ConfigError, match="can't 'rise' it; did you mean 'raise'"):
        score_loss(lambda cosines: cosines.amax(1), "rise")  # type: ignore[arg-type]


@pytest.mark.parametrize("attack", [PGD("linf", 8 / 255, 2 / 255, 10), AutoAttack((APGD("linf", 8 / 255, 10),))])
def test_an_open_world_score_is_attacked_in_both_directions(attack) -> None:
    model, clean, score = convolutional(5), images(16), partial(mcm, temperature=1.0)
    before = score(model(clean))
    unused = torch.full((16,), -1)
    lowered = attack(model, clean, unused, score_loss(score, "lower"), seeds(16)).pixels
    raised = attack(model, clean, unused, score_loss(score, "raise"), seeds(16)).pixels
    assert (score(model(lowered)) < before).all()
    assert (score(model(raised)) > before).all()


def test_score_losses_are_float32_whatever_the_score_is() -> None:
    cosines = torch.rand(4, 3, generator=torch.Generator().manual_seed(0))
    value = score_loss(partial(mcm, temperature=0.1), "lower")(cosines, torch.zeros(4))
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, -(cosines / 0.1).softmax(1).amax(1))
