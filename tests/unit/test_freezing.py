"""Frozen weights compute the same, by the same fast path, and stay out of everybody's way."""

from collections import Counter

import pytest
import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from configs.schema.model import ModelConfig
from experiments.bench.memory import peak_bytes
from lightning_modules.backbones import Backbone, freeze, frozen, load_backbone, reference_copy
from lightning_modules.backbones.freezing import eval_mode, freeze_text


@pytest.fixture
def pixels() -> Tensor:
    return torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def backbone(tiny_vit: str) -> Backbone:
    return load_backbone(ModelConfig(tiny_vit))


def input_gradient(backbone: Backbone, pixels: Tensor) -> Tensor:
    pixels = pixels.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(backbone.embed_image(pixels).square().sum(), pixels)
    return gradient


def operations(backbone: Backbone, pixels: Tensor, gradient: bool) -> Counter[str]:
    """How often each operation runs, in mixed precision, where attention has no kernel of its own for inference."""
    with (
        profile(activities=[ProfilerActivity.CPU]) as profiler,
        torch.set_grad_enabled(gradient),
        torch.autocast("cpu", torch.bfloat16),
    ):
        input_gradient(backbone, pixels) if gradient else backbone.embed_image(pixels)
    return Counter({event.key: event.count for event in profiler.key_averages()})


def test_the_gradient_of_the_pixels_is_the_same(backbone: Backbone, pixels: Tensor) -> None:
    before = input_gradient(backbone, pixels)
    torch.testing.assert_close(input_gradient(freeze(backbone), pixels), before)


@pytest.mark.parametrize("gradient", [False, True])
def test_no_weight_is_copied_per_image(backbone: Backbone, pixels: Tensor, gradient: bool) -> None:
    """The batched products are those of the trainable model. Plain freezing has more: if it ever stops to, `freeze`
    can become `requires_grad_(False)`."""
    trainable = operations(backbone, pixels, gradient)["aten::bmm"]
    assert operations(freeze(backbone), pixels, gradient)["aten::bmm"] == trainable
    assert operations(backbone.requires_grad_(False), pixels, gradient)["aten::bmm"] > trainable


def test_only_in_projections_keep_their_gradient(backbone: Backbone) -> None:
    left = {name for name, parameter in freeze(backbone).named_parameters() if parameter.requires_grad}
    attentions = {name for name, module in backbone.named_modules() if isinstance(module, nn.MultiheadAttention)}
    assert left == {f"{name}.in_proj_weight" for name in attentions}


def test_a_reference_stays_as_it_was(backbone: Backbone, pixels: Tensor) -> None:
    with torch.no_grad():
        before = backbone.embed_image(pixels)
        reference = reference_copy(backbone)
        for parameter in backbone.parameters():
            parameter.mul_(1.5)
        assert not torch.equal(backbone.embed_image(pixels), before)
    embeddings = reference(pixels)
    assert torch.equal(embeddings, before)
    assert not embeddings.requires_grad


def test_a_reference_is_in_eval_mode(tiny_resnet: str, pixels: Tensor) -> None:
    """A training image tower with batch normalisation still gets the reference that evaluation saw."""
    backbone = load_backbone(ModelConfig(tiny_resnet))
    before = backbone.embed_image(pixels).detach()
    reference = reference_copy(backbone.train())
    torch.testing.assert_close(reference(pixels), before)
    torch.testing.assert_close(reference(pixels), before)  # no statistics moved


def test_a_reference_is_not_registered(backbone: Backbone) -> None:
    holder = nn.Module()
    holder.backbone = backbone
    names = set(holder.state_dict())
    holder.reference = reference_copy(backbone)
    assert set(holder.state_dict()) == names
    assert len(list(holder.parameters())) == len(list(backbone.parameters()))


def test_a_reference_follows_the_pixels(backbone: Backbone, pixels: Tensor) -> None:
    reference = reference_copy(backbone)
    assert reference(pixels).device.type == "cpu"
    backbone.to("meta")
    assert reference(pixels.to("meta")).device.type == "meta"


def test_frozen_text_leaves_the_image_tower(backbone: Backbone) -> None:
    freeze_text(backbone)
    for name, parameter in backbone.named_parameters():
        assert parameter.requires_grad == name.startswith("clip.visual.")


def test_eval_mode_restores_each_part(tiny_resnet: str) -> None:
    backbone = load_backbone(ModelConfig(tiny_resnet)).train()
    backbone.visual.eval()
    before = [module.training for module in backbone.modules()]

    def fail_in_eval_mode() -> None:
        with eval_mode(backbone):
            assert not any(module.training for module in backbone.modules())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_in_eval_mode()
    assert [module.training for module in backbone.modules()] == before


def test_frozen_batch_normalisation_computes_the_same_and_keeps_less(tiny_resnet: str, pixels: Tensor) -> None:
    backbone = load_backbone(ModelConfig(tiny_resnet))
    for layer in backbone.modules():
        if isinstance(layer, nn.BatchNorm2d):
            torch.nn.init.uniform_(layer.running_mean, -0.5, 0.5)  # type: ignore[arg-type]
            torch.nn.init.uniform_(layer.running_var, 0.5, 2.0)  # type: ignore[arg-type]
    before, device = input_gradient(backbone, pixels), pixels.device
    peak = peak_bytes(lambda: input_gradient(backbone, pixels), device)
    with frozen(backbone):
        torch.testing.assert_close(input_gradient(backbone, pixels), before)
        assert peak_bytes(lambda: input_gradient(backbone, pixels), device) < 0.75 * peak
    assert torch.equal(input_gradient(backbone, pixels), before)


def test_a_frozen_model_thaws(tiny_resnet: str, pixels: Tensor) -> None:
    """After an error too; and layers in training mode work as ever meanwhile."""
    backbone = load_backbone(ModelConfig(tiny_resnet)).train()
    backbone.visual.requires_grad_(False)
    before = [(name, parameter.requires_grad) for name, parameter in backbone.named_parameters()]
    kinds = [type(layer) for layer in backbone.modules()]
    counters = [layer.num_batches_tracked for layer in backbone.modules() if isinstance(layer, nn.BatchNorm2d)]

    def fails() -> None:
        with frozen(backbone):
            backbone.embed_image(pixels)
            assert not any(parameter.requires_grad for parameter in backbone.parameters() if parameter.ndim == 4)
            raise KeyError

    with pytest.raises(KeyError):
        fails()
    assert counters
    assert all(int(counter) == 1 for counter in counters if counter is not None)
    assert [(name, parameter.requires_grad) for name, parameter in backbone.named_parameters()] == before
    assert [type(layer) for layer in backbone.modules()] == kinds
