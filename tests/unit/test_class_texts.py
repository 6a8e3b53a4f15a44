"""The text side of training: what is encoded once, what follows the weights, what an adversary may do to it."""

import pytest
import torch
from torch import Tensor

from configs.errors import ConfigError
from configs.schema.model import ModelConfig
from configs.schema.objective import Hyperbolic, TextAttack
from lightning_modules.backbones import Backbone, class_features, load_backbone
from lightning_modules.backbones.text_tower import TextTower
from lightning_modules.class_texts import ClassTexts
from lightning_modules.heads import Entry, HyperbolicHead
from lightning_modules.hyperbolic import fit_head

NAMES, TEMPLATES = ("red square", "green disc", "blue bar"), ("a {c}", "one {c}")
WORDINGS = [[[template.replace("{c}", name) for template in TEMPLATES] for name in NAMES]]


@pytest.fixture
def backbone(tiny_vit: str) -> Backbone:
    return load_backbone(ModelConfig(tiny_vit)).requires_grad_(False)


def counted(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Prompts per call of the text tower."""
    calls: list[int] = []
    encode = backbone.clip.encode_text
    monkeypatch.setattr(backbone.clip, "encode_text", lambda tokens: calls.append(len(tokens)) or encode(tokens))
    return calls


def test_points_are_those_of_the_classifier(backbone: Backbone) -> None:
    hyperbolic = HyperbolicHead(1.0, Entry(-1.0, 0.5, 1.0), Entry(-1.0, 0.5, 1.0), 0.0)
    for head, trained in ((None, False), (None, True), (hyperbolic, True)):
        backbone.hyperbolic = head
        points = ClassTexts(backbone, WORDINGS, trained)().detach()
        torch.testing.assert_close(points, class_features(backbone, NAMES, TEMPLATES))


def test_blocks_may_have_different_numbers_of_prompts(backbone: Backbone) -> None:
    both = ClassTexts(backbone, [*WORDINGS, [["a disc"], ["a bar"]]], trained=False)()
    assert both.shape[0] == 5
    torch.testing.assert_close(both[:3], class_features(backbone, NAMES, TEMPLATES))
    torch.testing.assert_close(both[3:], class_features(backbone, ("disc", "bar"), ("a {c}",)))


def test_the_tower_runs_once_and_the_projection_is_followed(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    TextTower(backbone).projection.requires_grad_(True)
    calls = counted(backbone, monkeypatch)
    texts = ClassTexts(backbone, WORDINGS, trained=True)
    before = texts()
    assert calls == [6]
    before.sum().backward()
    weight = backbone.clip.get_parameter("text_projection")
    assert weight.grad is not None
    assert weight.grad.abs().sum() > 0
    with torch.no_grad():
        weight.copy_(weight.flip(1))
    after = texts().detach()
    assert calls == [6]
    torch.testing.assert_close(after, class_features(backbone, NAMES, TEMPLATES))
    assert not torch.allclose(after, before.detach(), atol=1e-3)


def test_where_the_head_alone_is_trained_no_tower_runs_again(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone.hyperbolic = fit_head(backbone, Hyperbolic(), torch.rand(4, 3, 32, 32), NAMES, TEMPLATES)
    calls = counted(backbone, monkeypatch)
    texts = ClassTexts(backbone, WORDINGS, trained=False, head_trained=True)
    before = texts()
    before.square().sum().backward()
    assert backbone.hyperbolic.text.log_scale.grad is not None
    with torch.no_grad():
        backbone.hyperbolic.text.log_scale.add_(0.1)
    assert (texts().norm(dim=1) > before.norm(dim=1)).all()
    assert calls == [6]


def test_nothing_trained_means_nothing_computed(backbone: Backbone) -> None:
    texts = ClassTexts(backbone, WORDINGS, trained=False)
    assert texts() is texts()
    assert not texts().requires_grad


def test_a_perturbation_is_in_its_budget_and_raises_the_loss(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loss of points from shifted embeddings: the shift that was made is recovered from what the tower got."""
    texts = ClassTexts(backbone, WORDINGS, trained=True)
    direction = torch.randn(3, texts().shape[1], generator=torch.Generator().manual_seed(0))

    def loss(points: Tensor) -> Tensor:
        return (points * direction).sum()

    everyone, attack = torch.ones(3, dtype=torch.bool), TextAttack(eps=1e-3, prompts=6)
    shifts: list[Tensor] = []
    pooled = TextTower.pooled
    monkeypatch.setattr(
        TextTower, "pooled", lambda self, tokens, shift=None: shifts.append(shift) or pooled(self, tokens, shift)
    )
    found = texts.perturbed(loss, everyone, attack, (0, 0))
    assert shifts[-1].abs().max() == pytest.approx(1e-3)
    assert loss(found) > loss(texts())
    larger = texts.perturbed(loss, everyone, TextAttack(eps=4e-3, prompts=6), (0, 0))
    assert loss(larger) > loss(found)


def test_only_some_prompts_are_perturbed_those_of_relevant_classes_first(backbone: Backbone) -> None:
    texts = ClassTexts(backbone, WORDINGS, trained=True)
    relevant = torch.tensor([False, True, False])
    moved = texts.perturbed(
        lambda points: points.square()[:, 0].sum(), relevant, TextAttack(eps=0.1, prompts=2), (0, 3)
    )
    changed = (moved - texts()).abs().amax(1) > 1e-6
    assert changed.tolist() == relevant.tolist()
    again = [
        texts.perturbed(lambda p: p[:, 0].sum(), ~relevant, TextAttack(0.1, 1), (0, step)) for step in (5, 5, 6, 7)
    ]
    assert torch.equal(again[0], again[1])
    assert any(not torch.equal(again[0], other) for other in again[2:])


def test_a_tower_without_projection_is_refused_where_it_would_be_trained(backbone: Backbone) -> None:
    backbone.clip.text_projection = None
    with pytest.raises(ConfigError, match="train_text=false"):
        ClassTexts(backbone, WORDINGS, trained=True)
