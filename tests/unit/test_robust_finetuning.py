"""The training step against a plain loop of its own."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from configs.errors import CheckpointError
from configs.schema.attack import APGD, PGD, Attack, AutoAttack, NoAttack
from configs.schema.model import ModelConfig
from configs.schema.module import OptimConfig
from configs.schema.objective import AGFT, FARE, PMGAFT, Hierarchical, Hyperbolic, Objective, TeCoA
from lightning_modules.backbones import load_backbone
from lightning_modules.backbones.freezing import Reference
from lightning_modules.hierarchy import Forest, Tree
from lightning_modules.hyperbolic import fit_head
from lightning_modules.objectives import Embedded, Views
from lightning_modules.robust_finetuning import RobustFinetuning, without_padding

CLASSES = ("red square", "green disc", "blue square")
EPS, STEP, STEPS = 8 / 255, 3 / 255, 3
PLAIN = PGD(eps_255=8.0, step_255=3.0, steps=STEPS, random_start=False)
Batch = dict[str, Any]


@pytest.fixture
def batch() -> Batch:
    """Six images of 32 px."""
    random = torch.Generator().manual_seed(0)
    return {
        "image": torch.rand(6, 3, 32, 32, generator=random),
        "label": torch.tensor([0, 1, 2, 0, 1, 2]),
        "valid": torch.ones(6, dtype=torch.bool),
        "index": torch.arange(6) + 40,
        "key": list("abcdef"),
    }


def module(
    name: str, objective: Objective | None = None, attack: Attack = PLAIN, validation: Attack | None = None
) -> RobustFinetuning:
    """Ready to train, without a trainer."""
    made = RobustFinetuning(
        load_backbone(ModelConfig(name)), objective or TeCoA(), attack, OptimConfig(), total_steps=10,
        forest=Forest(CLASSES), templates=("a {c}", "one {c}"), seed=3, log_every=10**6,
        validation_attack=validation,
    )  # fmt: skip
    made.setup("fit")
    made.on_fit_start()
    return made


def gradients(trained: RobustFinetuning) -> dict[str, Tensor]:
    return {name: weight.grad for name, weight in trained.named_parameters() if weight.grad is not None}


def plain_tecoa(name: str, batch: Batch) -> dict[str, Tensor]:
    """Mao et al.'s step as one would write it down, on a model of its own: `backward` and `zero_grad` everywhere."""
    backbone = load_backbone(ModelConfig(name))
    with torch.no_grad():
        prompts = [[f"a {c}", f"one {c}"] for c in CLASSES]
        texts = torch.stack([F.normalize(backbone.embed_text(pair), dim=-1).mean(0) for pair in prompts])
        texts = F.normalize(texts, dim=-1)
        scale = backbone.logit_scale

    def loss(pixels: Tensor) -> Tensor:
        return F.cross_entropy(scale * F.normalize(backbone.embed_image(pixels), dim=-1) @ texts.T, batch["label"])

    clean, moved = batch["image"], batch["image"].clone()
    for _ in range(STEPS):
        moved.requires_grad_()
        loss(moved).backward()
        moved = (moved + STEP * moved.grad.sign()).detach()
        moved = (clean + (moved - clean).clamp(-EPS, EPS)).clamp(0, 1)
    backbone.zero_grad()
    loss(moved).backward()
    visual = {f"backbone.clip.visual.{key}": weight.grad for key, weight in backbone.visual.named_parameters()}
    return {key: gradient for key, gradient in visual.items() if gradient is not None}


@pytest.mark.parametrize("model", ["tiny_vit", "tiny_resnet"])
def test_gradient_is_that_of_a_plain_loop(model: str, batch: Batch, request: pytest.FixtureRequest) -> None:
    name = request.getfixturevalue(model)
    trained = module(name)
    trained.training_step(batch, 0).backward()
    found, expected = gradients(trained), plain_tecoa(name, batch)
    assert found.keys() == expected.keys()
    for key in expected:
        torch.testing.assert_close(found[key], expected[key], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("objective", [TeCoA(), FARE(), FARE(clean_weight=1.0)])
@pytest.mark.parametrize("attack", [PGD(steps=2), PGD(steps=2, loss="margin"), APGD(steps=3), NoAttack()])
def test_the_attack_leaves_no_gradient_and_the_text_side_gets_none(
    objective: Objective, attack: Attack, batch: Batch, tiny_vit: str
) -> None:
    trained = module(tiny_vit, objective, attack)
    before = torch.get_rng_state()
    loss = trained.training_step(batch, 0)
    assert gradients(trained) == {}
    assert torch.equal(torch.get_rng_state(), before)
    loss.backward()
    assert gradients(trained).keys() == {
        name for name, _ in trained.named_parameters() if name.startswith("backbone.clip.visual.")
    }
    assert loss.isfinite()


def test_batch_normalisation_keeps_its_statistics_in_any_mode(batch: Batch, tiny_resnet: str) -> None:
    trained = module(tiny_resnet)
    before = {name: value.clone() for name, value in trained.named_buffers()}
    assert any("running_mean" in name for name in before)
    trained.train()
    trained.training_step(batch, 0).backward()
    assert not trained.backbone.training
    for name, value in trained.named_buffers():
        assert torch.equal(value, before[name]), name


def test_padding_changes_neither_loss_nor_gradient(batch: Batch, tiny_vit: str) -> None:
    padded = {
        name: torch.cat([values, values[:2]]) if isinstance(values, Tensor) else values + values[:2]
        for name, values in batch.items()
    }
    padded["valid"] = torch.arange(8) < 6
    padded["label"][6:] = -1
    whole, cut = module(tiny_vit, attack=PGD(steps=2)), module(tiny_vit, attack=PGD(steps=2))
    first, second = whole.training_step(batch, 0), cut.training_step(without_padding(padded), 0)
    assert torch.equal(first, second)


def test_a_sample_meets_the_same_adversary_in_any_batch(batch: Batch, tiny_vit: str) -> None:
    trained = module(tiny_vit, attack=PGD(steps=1, step_255=1.0))
    everything = trained._attack_objective(batch, trained.texts(), step=5).pixels
    for row in range(6):
        alone = {name: batch[name][row : row + 1] for name in ("image", "label", "index")}
        found = trained._attack_objective(alone, trained.texts(), step=5).pixels[0]
        # Sums over a batch of another size round differently, which can flip the sign of a gradient next to zero.
        assert (found - everything[row]).abs().gt(1e-6).float().mean() < 0.01
    later = trained._attack_objective(batch, trained.texts(), step=6).pixels
    assert (later - everything).abs().mean() > 1 / 255


def test_the_reference_is_the_original_after_training_and_resuming(batch: Batch, tiny_vit: str) -> None:
    trained = module(tiny_vit, FARE(), NoAttack())
    original = load_backbone(ModelConfig(tiny_vit)).embed_image(batch["image"])
    with torch.no_grad():
        for weight in trained.backbone.visual.parameters():
            weight.add_(0.1)
    checkpoint = {"state_dict": trained.state_dict()}
    trained.on_save_checkpoint(checkpoint)
    resumed = module(tiny_vit, FARE(), NoAttack())
    resumed.on_load_checkpoint(checkpoint)
    resumed.load_state_dict(checkpoint["state_dict"], strict=resumed.strict_loading)
    for fitted in (trained, resumed):
        assert fitted._reference is not None
        torch.testing.assert_close(fitted._reference(batch["image"]), original.detach())
        assert not torch.allclose(fitted.backbone.embed_image(batch["image"]), original, atol=1e-3)


def test_checkpoints_hold_the_image_tower_and_refuse_another(tiny_vit: str, tiny_resnet: str) -> None:
    trained, other = module(tiny_vit), module(tiny_resnet)
    checkpoint = {"state_dict": trained.state_dict()}
    trained.on_save_checkpoint(checkpoint)
    assert all(name.startswith("backbone.clip.visual.") for name in checkpoint["state_dict"])
    with pytest.raises(CheckpointError, match="another model"):
        other.on_load_checkpoint(checkpoint)


def test_bf16_autocast_trains_every_weight_with_an_fp32_perturbation(batch: Batch, tiny_vit: str) -> None:
    """A forward without gradients must not leave casts in autocast's cache that the training forward would reuse. The
    gradients are those of fp32 at the same pixels; which pixels, rounding decides early on."""
    exact, mixed = (module(tiny_vit, FARE(clean_weight=1.0), PGD(steps=2)) for _ in range(2))
    with torch.autocast("cpu", torch.bfloat16):
        pixels = mixed._attack_objective(batch, mixed.texts(), 0, mixed._refer(batch["image"])).pixels
        loss = mixed.training_step(batch, 0)
    loss.backward()
    adversarial, clean = (Embedded(exact.backbone.embed_image(images)) for images in (pixels, batch["image"]))
    views = Views(adversarial, clean, Embedded(clean.pooled.detach()))
    exact.objective.outer(views, batch["label"], exact.texts())[0].backward()
    assert pixels.dtype == torch.float32
    assert (pixels - batch["image"]).abs().max() <= EPS + 1e-6
    assert gradients(mixed).keys() == gradients(exact).keys()
    one, two = (torch.cat([value.flatten() for value in gradients(each).values()]) for each in (exact, mixed))
    assert F.cosine_similarity(one, two, dim=0) > 0.99


def test_a_sequence_of_attacks_is_the_inner_loop_of_training(batch: Batch, tiny_vit: str) -> None:
    """It raises the cross-entropy of whom it can't fell, fells others, and leaves no gradient behind."""
    sequence = AutoAttack(version="custom", attacks=["apgd-ce", "apgd-t"], eps_255=8.0, steps=4, targets=2)
    trained = module(tiny_vit, attack=sequence)
    labels = trained._classify(batch["image"], trained.texts()).argmax(1)
    batch["label"] = labels
    found = trained._attack_objective(batch, trained.texts(), step=0)
    assert torch.equal(found.fallen, trained._classify(found.pixels, trained.texts()).argmax(1) != labels)
    assert (found.pixels - batch["image"]).abs().max() <= EPS + 1e-6
    assert not gradients(trained)
    trained.training_step(batch, 0).backward()
    assert gradients(trained)


def test_validation_may_meet_another_attack(batch: Batch, tiny_vit: str) -> None:
    trained = module(tiny_vit, attack=NoAttack(), validation=PGD(eps_255=64.0, step_255=16.0, steps=8, loss="ce"))
    texts = trained.texts()
    batch["label"] = labels = trained._classify(batch["image"], texts).argmax(1)
    trained_on = trained._attack_objective(batch, texts, step=0).pixels
    assert torch.equal(trained_on, batch["image"])
    validated_on = trained._attack_classification(batch, texts).pixels
    assert (trained._classify(validated_on, texts).argmax(1) == labels).float().mean() < 0.5


def test_validation_attacks_the_classification_whatever_training_raises(batch: Batch, tiny_vit: str) -> None:
    trained = module(tiny_vit, FARE(), PGD(steps=3, random_start=False))
    texts = trained.texts()
    batch["label"] = trained._classify(batch["image"], texts).argmax(1)
    pixels = [
        trained._attack_classification(batch, texts).pixels,
        trained._attack_objective(batch, texts, 0, trained._refer(batch["image"])).pixels,
    ]
    losses = [F.cross_entropy(trained._classify(each, texts), batch["label"]) for each in pixels]
    assert losses[0] > losses[1]


def test_a_hierarchical_objective_trains_the_projection_and_the_head(batch: Batch, tiny_vit: str) -> None:
    """Every weight that requires a gradient gets one, and the text tower's others none."""
    backbone = load_backbone(ModelConfig(tiny_vit))
    backbone.hyperbolic = fit_head(backbone, Hyperbolic(power=0.5), batch["image"], CLASSES, ("a {c}",))
    tree = Tree("shapes", (CLASSES, ("square", "disc")), ((0, 1, 0),))
    trained = RobustFinetuning(
        backbone, Hierarchical(vic_radius=0.0, gap=0.5, text_lr_factor=0.3), PLAIN, OptimConfig(), total_steps=10,
        forest=Forest(CLASSES, (tree,)), templates=("a {c}", "one {c}"), seed=3, log_every=1,
    )  # fmt: skip
    trained.setup("fit")
    trained.on_fit_start()
    loss, _ = trained.objective.outer(
        Views(Embedded(backbone.embed_image(batch["image"]))), batch["label"], trained.texts()
    )
    loss.backward()
    visual = {name for name, _ in trained.named_parameters() if name.startswith("backbone.clip.visual.")}
    others = {name for name in gradients(trained) if name not in visual}
    scales = ("image.log_scale", "image.power", "text.log_scale", "text.power", "log_logit_scale")
    assert others == {"backbone.clip.text_projection", *(f"backbone.hyperbolic.{name}" for name in scales)}
    assert all(gradient.abs().sum() > 0 for name, gradient in gradients(trained).items() if name in others)
    groups = {group["name"]: group["lr"] for group in trained.configure_optimizers()["optimizer"].param_groups}
    assert groups["decay of text_projection"] == pytest.approx(0.3 * groups["decay"])


@pytest.mark.parametrize(("objective", "passes"), [(TeCoA(), 0), (FARE(), 1), (AGFT(), 1), (PMGAFT(), 1)])
def test_the_original_sees_a_batch_once(
    batch: Batch, tiny_vit: str, objective: Objective, passes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    refer = Reference.__call__
    monkeypatch.setattr(Reference, "__call__", lambda self, pixels: seen.append(len(pixels)) or refer(self, pixels))
    module(tiny_vit, objective).training_step(batch, 0)
    assert seen == [6] * passes
