"""Square: against the paper's algorithm, and what holds for every walk."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from lightning_modules.attacks import misclassified
from lightning_modules.attacks.auto_attack import AutoAttack
from lightning_modules.attacks.losses import cross_entropy, margin
from lightning_modules.attacks.method import Answer
from lightning_modules.attacks.shrinkage import shrink
from lightning_modules.attacks.square import Search, Square
from lightning_modules.attacks.walks import Samples
from lightning_modules.attacks.windows import place, sides
from tests.unit.networks import Doubled, seeds
from tests.unit.published_square import ORDER, published

RADIUS = {"linf": 12 / 255, "l2": 0.8, "l1": 8.0}
SHAPE = (3, 16, 13)


def network(classes: int, seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.GELU(), nn.Flatten(), nn.Linear(8 * 7 * 6, classes))
    return Doubled(layers).eval()


def images(count: int, seed: int = 0) -> Tensor:
    return torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(seed)).mul_(1.2).sub_(0.1).clamp_(0, 1)


def samples(clean: Tensor, labels: Tensor) -> Samples:
    row = torch.arange(len(clean))
    return Samples(row, clean, labels, clean.new_zeros(len(clean), 1), seeds(len(clean)), torch.zeros_like(row))


def search(method: Square, model: nn.Module, batch: Samples) -> tuple[Search, Tensor, Tensor]:
    """The walks after all queries, the pixels (Q, B, C, H, W) asked about, and the losses (Q, B)."""
    walks, asked, losses = method.begin(batch), [], []
    with torch.no_grad():
        while not method.over(walks).all():
            outputs = model(walks.pixels)
            asked.append(walks.pixels)
            losses.append(method.loss(outputs, walks, cross_entropy))
            method.advance(walks, Answer(outputs, losses[-1], None))
    return walks, torch.stack(asked), torch.stack(losses)


def fall(model: nn.Module, method: Square, clean: Tensor, labels: Tensor, slots: int) -> dict[int, tuple[bool, Tensor]]:
    stream = AutoAttack((method,)).stream(model, cross_entropy, misclassified, slots)
    outcomes = [*stream.push(samples(clean, labels)), *stream.finish()]
    return {
        int(row): (bool(fell), pixels)
        for each in outcomes
        for row, fell, pixels in zip(each.row, each.fallen, each.pixels, strict=True)
    }


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize("classes", [3, 20])
def test_equals_the_published_algorithm(norm: str, classes: int) -> None:
    """Point by point, over three window sides, from equal draws."""
    model, clean = network(classes), images(4)
    labels, method = model(clean).argmax(1), Square(norm, RADIUS[norm], proposals=60)
    _, asked, losses = search(method, model, samples(clean, labels))
    for row in range(4):
        one = slice(row, row + 1)
        points, margins = published(method, model, clean[one], labels[one], seeds(4)[one])
        np.testing.assert_allclose(asked[:, row].numpy(), np.stack(points), rtol=0, atol=2e-5)
        np.testing.assert_allclose(losses[:, row].numpy(), margins, rtol=0, atol=2e-5)
        rises = sum(later > max(margins[:number]) for number, later in enumerate(margins) if number)
        assert 2 < rises < 65  # some proposals were taken and some undone


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_fate_depends_neither_on_slots_nor_on_the_batch(norm: str) -> None:
    """With 3 slots, samples at different iterations, with windows of different sides, share a batch."""
    model, clean = network(20), images(10)
    labels, method = model(clean).argmax(1), Square(norm, RADIUS[norm] * 0.7, proposals=40, restarts=2)
    together, few = fall(model, method, clean, labels, slots=10), fall(model, method, clean, labels, slots=3)
    assert 0 < sum(fell for fell, _ in together.values()) < 10
    for row in range(10):
        assert few[row][0] == together[row][0]
        torch.testing.assert_close(few[row][1], together[row][1], rtol=0, atol=1e-6)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_every_question_keeps_the_budget(norm: str, dtype: torch.dtype) -> None:
    inner, clean = network(3).to(dtype), images(5)
    network_ = inner.network

    class Rounded(nn.Module):
        def forward(self, pixels: Tensor) -> Tensor:
            return network_(pixels.to(dtype))

    labels, eps = Rounded()(clean).argmax(1), RADIUS[norm]
    walks, asked, losses = search(Square(norm, eps, proposals=40), Rounded(), samples(clean, labels))
    lengths = torch.linalg.vector_norm((asked.double() - clean.double()).flatten(2), ORDER[norm], dim=2)
    assert asked.dtype == torch.float32
    assert lengths.max() <= eps * (1 + 1e-6)
    assert lengths.max() > eps * 0.99
    assert asked.min() >= 0
    assert asked.max() <= 1
    torch.testing.assert_close(walks.best_loss, losses.amax(0), rtol=0, atol=0)
    torch.testing.assert_close(margin(Rounded()(walks.best), labels), losses.amax(0), rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_more_proposals_restarts_and_radius_fell_more(norm: str) -> None:
    model, clean = network(20, seed=1), images(16, seed=1)
    labels, eps = model(clean).argmax(1), RADIUS[norm] * 0.6

    def fallen(method: Square) -> set[int]:
        return {row for row, (fell, _) in fall(model, method, clean, labels, slots=16).items() if fell}

    few, many = fallen(Square(norm, eps, proposals=10)), fallen(Square(norm, eps, proposals=40))
    assert few <= many
    assert many <= fallen(Square(norm, eps, proposals=40, restarts=3))
    assert len(few) < len(many) < len(fallen(Square(norm, eps * 3, proposals=40)))


def test_needs_no_gradient() -> None:
    """A network of steps has none, and Square fells its samples all the same."""
    inner, clean = network(20), images(8)

    class Steps(nn.Module):
        def forward(self, pixels: Tensor) -> Tensor:
            assert not pixels.requires_grad
            return inner((pixels * 16).round() / 16).round(decimals=3)

    labels = Steps()(clean).argmax(1)
    found = fall(Steps(), Square("linf", 0.1, proposals=100), clean, labels, slots=8)
    assert sum(fell for fell, _ in found.values()) > 4


def test_raises_the_loss_it_is_given() -> None:
    model, clean = network(5), images(3)
    labels = model(clean).argmax(1)
    walks, _, losses = search(Square("linf", 0.05, 20, own_loss=None), model, samples(clean, labels))
    torch.testing.assert_close(walks.best_loss, cross_entropy(model(walks.best), labels).float(), rtol=1e-5, atol=1e-5)
    assert (walks.best_loss > losses[0]).all()


def test_trials_draw_anew_and_seeds_alone_decide() -> None:
    clean, method = images(2), Square("l2", 0.5)
    batch = samples(clean, torch.zeros(2, dtype=torch.int64))
    again = samples(clean, torch.zeros(2, dtype=torch.int64))
    torch.manual_seed(1)
    assert torch.equal(method.begin(batch).pixels, method.begin(again).pixels)
    again.trial = again.trial + 1
    assert not torch.equal(method.begin(batch).pixels, method.begin(again).pixels)


def test_sides_of_the_windows() -> None:
    """The published numbers for ImageNet (224 pixels) and CIFAR-10 (32)."""
    assert sides(224, 224, odd=False) == (200, 142, 100, 71, 50, 35, 25, 18, 13, 9)
    assert sides(32, 32, odd=False) == (29, 20, 14, 10, 7, 5, 4, 3, 2, 1)
    assert sides(32, 32, odd=True) == (29, 21, 15, 11, 7, 5, 5, 3, 3, 3)
    assert sides(8, 3, odd=True)[0] == 3


@given(st.integers(1, 9), st.integers(1, 9), st.data())
@settings(max_examples=60, deadline=None)
def test_windows_lie_within_the_image(height: int, width: int, data: st.DataObject) -> None:
    side = data.draw(st.integers(1, min(height, width)))
    draws = data.draw(st.lists(st.floats(-1, 1, width=32, exclude_max=True), min_size=2, max_size=2))
    window = place(torch.tensor([side]), torch.tensor([draws]), height, width)
    assert int(window.mask(height, width).sum()) == side * side


@given(st.integers(0, 2**32 - 1), st.floats(1.0, 20.0), st.floats(0.01, 1.0))
@settings(max_examples=60, deadline=None)
def test_shrinking_finds_the_nearest_point(seed: int, radius: float, scale: float) -> None:
    """By its optimality conditions: one threshold for all that is neither at home nor at the end of the pixel range."""
    generator = torch.Generator().manual_seed(seed)
    clean = torch.rand(2, 3, 6, 6, generator=generator)
    perturbation = torch.randn(2, 3, 6, 6, generator=generator) * scale
    pixels = shrink(perturbation, clean, radius)
    kept = (pixels - clean).double()
    assert pixels.min() >= 0
    assert pixels.max() <= 1
    assert kept.abs().sum((1, 2, 3)).max() <= radius * (1 + 1e-6)
    for row in range(2):
        lost = perturbation[row].double().abs() - kept[row].abs()
        inner = (kept[row] != 0) & (pixels[row] > 1e-6) & (pixels[row] < 1 - 1e-6)
        home, end = kept[row] == 0, (kept[row] != 0) & ~inner
        if (kept[row].abs().sum() - radius).abs() > 1e-4 * radius:  # the range alone decides
            assert lost[inner].abs().sum() < 1e-4
            continue
        threshold = float(lost[inner].mean()) if inner.any() else float(lost[end].min())
        torch.testing.assert_close(lost[inner], torch.full_like(lost[inner], threshold), rtol=0, atol=1e-5)
        assert (perturbation[row].abs()[home] <= threshold + 1e-5).all()
        assert (lost[end] >= threshold - 1e-5).all()
