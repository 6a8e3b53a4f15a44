"""Defects that attack libraries are known for, tried on every attack that we have."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from configs.errors import ConfigError
from configs.schema import attack as schema
from lightning_modules.attacks import PGD, AutoAttack, Outcome, engine, fallbacks, misclassified
from lightning_modules.attacks.attack import ModelFn
from lightning_modules.attacks.losses import cross_entropy
from tests.unit.all_attacks import ALL, SCHEDULED, attack, samples, scheduled, streamed
from tests.unit.networks import convolutional, images, linear, seeds

every_attack = pytest.mark.parametrize("name", ALL)
every_scheduled = pytest.mark.parametrize("name", SCHEDULED)


@every_scheduled
def test_the_callers_tensors_are_read_only(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is tried again comes to where the fallen left, in walks that had begun as the caller's tensors."""
    monkeypatch.setitem(engine._INTERVAL, "cpu", 100)  # all decisions at the end of a trial
    model = convolutional(10)
    given = samples(model, 12)
    before = given.select(torch.arange(12))
    found = streamed(scheduled(name, scale=1.5, steps=4, restarts=2), model, given, slots=12)
    assert found.row.tolist() == list(range(12))
    assert all(torch.equal(value, getattr(given, field)) for field, value in vars(before).items())


class Layered(nn.Module):
    """A classifier with layers whose answers depend on the mode, and a method of its own to ask it by."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.drop, self.head = nn.BatchNorm2d(3), nn.Dropout(0.3), nn.Linear(192, 5)
        self.fails_after = 10**6
        self.asked = 0

    def forward(self, pixels: Tensor) -> Tensor:
        self.asked += 1
        if self.asked > self.fails_after:
            raise RuntimeError("out of memory")
        logits: Tensor = self.head(self.drop(self.norm(pixels).flatten(1)))
        return logits

    def logits(self, pixels: Tensor) -> Tensor:
        return self(pixels)


@every_attack
@pytest.mark.parametrize("fails_after", [3, 10**6])
def test_nothing_is_left_behind_even_where_the_model_raises(name: str, fails_after: int) -> None:
    """Frozen layers within a module in training mode stay as they are, statistics included."""
    model, clean = Layered(), images(4)
    model.norm.eval()
    model.drop.eval()
    model.head.bias.requires_grad_(False)
    model.fails_after = fails_after
    state = {key: value.clone() for key, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    generator, before = torch.get_rng_state(), clean.clone()
    labels = torch.arange(4)
    try:
        attack(name, scale=1e-4)(model, clean, labels, cross_entropy, seeds(4), None)
        assert fails_after > 3
    except RuntimeError:
        assert fails_after == 3
    assert all(parameter.grad is None for parameter in model.parameters())
    assert [parameter.requires_grad for parameter in model.parameters()] == [True, True, True, False]
    assert [module.training for module in model.modules()] == modes == [True, False, False, True]
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), generator)
    assert torch.is_grad_enabled()
    assert torch.equal(clean, before)


@pytest.mark.parametrize("name", ["pgd-linf", "apgd-t-linf", "square-l2", "auto-attack-linf"])
@pytest.mark.parametrize("layer", ["norm", "drop"])
@pytest.mark.parametrize("way", [lambda model: model, lambda model: model.logits], ids=["module", "method"])
def test_a_model_in_training_mode_is_refused(name: str, layer: str, way: Callable[[Layered], ModelFn]) -> None:
    model, clean = Layered().eval(), images(4)
    statistics = model.norm.running_mean.clone()
    getattr(model, layer).train()
    with pytest.raises(ConfigError, match=rf"layer '{layer}' .* training mode.*model\.eval\(\)"):
        attack(name)(way(model), clean, torch.arange(4), cross_entropy, seeds(4), misclassified)
    assert model.asked == 0
    assert torch.equal(model.norm.running_mean, statistics)


def test_a_precise_model_in_training_mode_is_refused_too() -> None:
    with pytest.raises(ConfigError, match=r"model\.eval\(\)"):
        scheduled("apgd-linf").stream(Layered().eval(), cross_entropy, misclassified, 4, confirm_fn=Layered())


def test_attention_that_drops_is_in_training_mode_too() -> None:
    attention = nn.Sequential(nn.MultiheadAttention(8, 2, dropout=0.1))
    with pytest.raises(ConfigError, match=r"layer '0' \(MultiheadAttention\)"):
        attack("pgd-l2")(attention, images(1), torch.zeros(1, dtype=torch.int64), cross_entropy, seeds(1))


def test_training_mode_that_changes_no_answer_is_allowed() -> None:
    """Dropout of nothing and frozen statistics; the mode of the module itself says nothing."""
    model, clean = Layered().train(), images(4)
    model.norm.eval()
    model.drop.p = 0.0
    found = attack("pgd-linf")(model, clean, torch.arange(4), cross_entropy, seeds(4))
    same = attack("pgd-linf")(model.eval(), clean, torch.arange(4), cross_entropy, seeds(4))
    assert torch.equal(found.pixels, same.pixels)


@pytest.mark.parametrize("name", [name for name in SCHEDULED if "-t-" in name])
def test_a_targeted_attack_on_one_class_is_refused(name: str) -> None:
    model = linear(1)
    with pytest.raises(ConfigError, match="has 1; it needs at least 2"):
        streamed(scheduled(name), model, samples(model, 3), slots=2)


@pytest.mark.parametrize("classes", [2, 3])
@every_attack
def test_two_and_three_classes_are_enough(name: str, classes: int) -> None:
    model = convolutional(classes)
    given = samples(model, 8)
    found = attack(name, scale=40.0, steps=10)(
        model, given.clean, given.target, cross_entropy, given.seeds, misclassified
    )
    assert found.fallen.any()
    assert torch.equal(misclassified(model(found.pixels), given.target), found.fallen)


def test_losses_that_stand_in_are_named_member_by_member() -> None:
    plus = schema.AutoAttack(version="plus")
    assert [told.split()[:5] for told in fallbacks(plus, 2)] == [
        ["margin", "in", "place", "of", "dlr,"],
        ["targeted_margin", "in", "place", "of", "targeted_dlr,"],
    ]
    assert [told.split()[0] for told in fallbacks(plus, 3)] == ["targeted_margin"]
    assert fallbacks(plus, 4) == []


@every_attack
def test_a_sample_whose_outputs_are_not_numbers_falls_alone(name: str) -> None:
    """It is reported, its pixels are sound, and the others' fates are what they are without it."""
    whole = convolutional(10)
    given = samples(whole, 8)
    given.clean[3] = 0.25

    def model(pixels: Tensor) -> Tensor:
        flat = (pixels - 0.25).abs().flatten(1).amax(1) < 0.2
        return torch.where(flat[:, None], float("nan"), whole(pixels))

    tiny = attack(name, scale=0.1, steps=3)
    found = tiny(model, given.clean, given.target, cross_entropy, given.seeds, misclassified)
    plain = tiny(whole, given.clean, given.target, cross_entropy, given.seeds, misclassified)
    others = torch.arange(8) != 3
    assert found.fallen[3]
    assert torch.equal(found.fallen[others], plain.fallen[others])
    assert not found.fallen.all()
    assert found.pixels.isfinite().all()
    if isinstance(tiny, AutoAttack):
        assert streamed(tiny, model, given, slots=3).broken.tolist() == [row == 3 for row in range(8)]


@pytest.mark.parametrize("name", ["apgd-linf", "auto-attack-linf", "auto-attack-l2"])
def test_a_bfloat16_model_gives_the_robust_accuracy_of_float32(name: str) -> None:
    """With a float32 model that confirms: no success too many, and at most one sample in 64 that it misses."""
    network = convolutional(10).network.float()
    given, found = samples(network, 64), scheduled(name)

    def quick(pixels: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return network(pixels)

    stream = found.stream(quick, cross_entropy, misclassified, 16, confirm_fn=network)
    halved = Outcome.join([*stream.push(given), *stream.finish()])
    halved = halved.select(halved.row.argsort())
    full = streamed(found, network, given, slots=16)
    assert misclassified(network(halved.pixels), given.target)[halved.fallen].all()
    assert abs(int(halved.fallen.sum()) - int(full.fallen.sum())) <= 1
    assert 0 < full.fallen.sum() < 64


@pytest.mark.parametrize("scale", [100.0, 1.0])
def test_negative_and_scaled_logits_are_margins_like_any_other(scale: float) -> None:
    """Cosines times CLIP's scale, all below 0: losses that mask the label with 0 would look at nothing."""
    network = convolutional(10)

    def shifted(pixels: Tensor) -> Tensor:
        return scale * (network(pixels) - 100.0)

    given = samples(network, 16)
    for name in ("apgd-t-linf", "fab-t-l2", "square-linf", "cw-linf"):
        plain, moved = (streamed(scheduled(name, 1.5, 8), each, given, 16).fallen for each in (network, shifted))
        assert torch.equal(plain, moved), name
        assert 0 < plain.sum() < 16


def test_pgd_on_raw_cosines_is_weaker_than_on_scaled_ones() -> None:
    """Cross-entropy of cosines in [-1, 1] is nearly flat; what is reported must come from the model's own scale."""
    network, clean = convolutional(10), images(48, low=0.2, high=0.8)
    text = torch.nn.functional.normalize(torch.randn(10, 10, generator=torch.Generator().manual_seed(3)), dim=1)

    def cosines(pixels: Tensor) -> Tensor:
        return torch.nn.functional.normalize(network(pixels).float(), dim=1) @ text.T

    labels, pgd = cosines(clean).argmax(1), PGD("linf", 2 / 255, 0.5 / 255, 10)

    def fallen(scale: float) -> int:
        found = pgd(lambda pixels: scale * cosines(pixels), clean, labels, cross_entropy, seeds(48), misclassified)
        return int(found.fallen.sum())

    assert 0 < fallen(1.0) < fallen(20.0)
