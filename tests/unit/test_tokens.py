"""Image tokens against the towers' own layers, place by place."""

from typing import Any

import pytest
import torch
from torch import Tensor

from configs.errors import ConfigError
from configs.schema.model import ModelConfig
from lightning_modules.backbones import Backbone, load_backbone, reference_copy
from lightning_modules.backbones.tokens import embed_tokens


@pytest.fixture
def pixels() -> Tensor:
    return torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def tokens(backbone: Backbone, pixels: Tensor) -> tuple[Tensor, Tensor]:
    return embed_tokens(backbone.visual, backbone.normalise(pixels))


def test_a_transformers_patches_through_its_norm_and_projection(tiny_vit: str, pixels: Tensor) -> None:
    backbone = load_backbone(ModelConfig(tiny_vit))
    visual: Any = backbone.visual
    seen: list[Tensor] = []
    handle = visual.transformer.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    pooled, found = tokens(backbone, pixels)
    handle.remove()
    assert torch.equal(pooled, backbone.embed_image(pixels))
    assert found.shape == (2, 16, 16)
    for place in range(16):
        torch.testing.assert_close(found[:, place], visual.ln_post(seen[0][:, 1 + place]) @ visual.proj)
    assert visual.output_tokens is False


def test_places_of_a_map_through_the_projection(pixels: Tensor) -> None:
    backbone = load_backbone(ModelConfig("mini"))
    visual: Any = backbone.visual
    pooled, found = tokens(backbone, pixels)
    assert torch.equal(pooled, backbone.embed_image(pixels))
    features = visual.trunk.forward_features(backbone.normalise(pixels))
    for place, (row, column) in enumerate([(0, 0), (0, 1), (1, 0), (1, 1)]):
        torch.testing.assert_close(found[:, place], visual.head.proj(features[:, :, row, column]))


def test_the_originals_tokens_have_no_gradient(tiny_vit: str, pixels: Tensor) -> None:
    backbone = load_backbone(ModelConfig(tiny_vit))
    found = reference_copy(backbone).tokens(pixels.requires_grad_())
    assert not any(part.requires_grad for part in found)
    for part, own in zip(found, tokens(backbone, pixels), strict=True):
        torch.testing.assert_close(part, own.detach())


def test_a_tower_without_tokens(tiny_resnet: str, pixels: Tensor) -> None:
    with pytest.raises(ConfigError, match=r"ModifiedResNet\) gives no tokens"):
        tokens(load_backbone(ModelConfig(tiny_resnet)), pixels)
