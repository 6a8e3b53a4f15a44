"""The image tower that an adversary asks, against the one that is measured."""

import shutil

import pytest
import torch

from configs.schema.model import ModelConfig
from lightning_modules.backbones import Backbone, load_backbone
from lightning_modules.backbones.quick import quick_embedding


@pytest.fixture(scope="module")
def backbone(tiny_vit: str) -> Backbone:
    return load_backbone(ModelConfig(tiny_vit))


def pixels(count: int = 4) -> torch.Tensor:
    return torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def test_without_anything_it_is_the_tower(backbone: Backbone) -> None:
    assert torch.equal(quick_embedding(backbone, False, "none")(pixels()), backbone.embed_image(pixels()))


def test_bfloat16_is_near_and_comes_back_in_float32(backbone: Backbone) -> None:
    found, exact = quick_embedding(backbone, True, "none")(pixels()), backbone.embed_image(pixels())
    assert found.dtype == torch.float32
    assert not torch.equal(found, exact)
    assert torch.nn.functional.cosine_similarity(found, exact).min() > 0.99


@pytest.mark.slow
@pytest.mark.skipif(
    shutil.which("g++") is None and shutil.which("c++") is None, reason="torch.compile wants a compiler"
)
@pytest.mark.parametrize("compilation", ["default", "cuda_graphs"])
def test_compiled_it_has_the_same_embeddings_and_gradients(backbone: Backbone, compilation: str) -> None:
    """And what it gave out before stays as it was when it is asked again."""
    gradients, embeddings = [], []
    for kind in ("none", compilation):
        images, embed = pixels().requires_grad_(), quick_embedding(backbone, False, kind)  # type: ignore[arg-type]
        found = embed(images)
        embeddings.append((found.detach(), found.detach().clone()))
        gradients += torch.autograd.grad(found.square().sum(), images)
        embed(1 - pixels())
    torch.testing.assert_close(embeddings[1][0], embeddings[0][0], atol=1e-4, rtol=1e-4)
    assert torch.equal(*embeddings[1])
    torch.testing.assert_close(gradients[1], gradients[0], atol=1e-4, rtol=1e-3)
