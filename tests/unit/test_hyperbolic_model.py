"""A model with a hyperbolic head: fitted, exported, loaded, classifying."""

import json
from pathlib import Path

import open_clip
import pytest
import torch

from configs.errors import CheckpointError, ConfigError
from configs.schema.model import ModelConfig
from configs.schema.objective import Hyperbolic
from lightning_modules.backbones import Backbone, export, load_backbone
from lightning_modules.backbones.export import HEAD_FILE
from lightning_modules.hyperbolic import fit_head
from lightning_modules.zero_shot import ZeroShot

NAMES, TEMPLATES = ("red square", "green disc", "blue bar"), ("a {c}", "one {c}")


@pytest.fixture
def pixels() -> torch.Tensor:
    return torch.rand(20, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def fitted(tiny_vit: str, pixels: torch.Tensor) -> Backbone:
    backbone = load_backbone(ModelConfig(tiny_vit))
    config = Hyperbolic(curvature=0.5, image_radius=0.6, text_radius=0.4, power=0.5)
    backbone.hyperbolic = fit_head(backbone, config, pixels, NAMES, TEMPLATES)
    return backbone


def test_a_model_gets_a_head_that_classifies_as_it_did(tiny_vit: str, pixels: torch.Tensor) -> None:
    """At power 0, with logits that are spread as much."""
    backbone = load_backbone(ModelConfig(tiny_vit))
    by_cosine = ZeroShot(backbone, NAMES, TEMPLATES).logits(pixels)
    backbone.hyperbolic = fit_head(backbone, Hyperbolic(power=0.0), pixels, NAMES, TEMPLATES)
    by_distance = ZeroShot(backbone, NAMES, TEMPLATES).logits(pixels)
    assert torch.equal(by_distance.argmax(1), by_cosine.argmax(1))
    assert by_distance.std(1).mean().item() == pytest.approx(by_cosine.std(1).mean().item(), rel=1e-3)
    given = fit_head(backbone, Hyperbolic(logit_scale=7.0), pixels, NAMES, TEMPLATES)
    assert float(given.scale.detach()) == pytest.approx(7.0)


def test_export_keeps_the_head_and_open_clip_still_opens_it(
    fitted: Backbone, pixels: torch.Tensor, tmp_path: Path
) -> None:
    before = ZeroShot(fitted, NAMES, TEMPLATES).logits(pixels)
    folder = export(fitted, tmp_path / "model")
    loaded = load_backbone(ModelConfig(f"local-dir:{folder}"))
    assert loaded.hyperbolic is not None
    assert torch.equal(ZeroShot(loaded, NAMES, TEMPLATES).logits(pixels), before)
    model = open_clip.create_model(f"local-dir:{folder}")
    torch.testing.assert_close(model.encode_image(loaded.normalise(pixels)), loaded.embed_image(pixels))
    loaded.hyperbolic = None
    assert not (export(loaded, folder) / HEAD_FILE).exists()


@pytest.mark.parametrize(("text", "error"), [("{", CheckpointError), (json.dumps({"curvature": 1.0}), ConfigError)])
def test_a_broken_head_is_told(fitted: Backbone, tmp_path: Path, text: str, error: type[Exception]) -> None:
    folder = export(fitted, tmp_path / "model")
    (folder / HEAD_FILE).write_text(text)
    with pytest.raises(error, match=r"export (the model|it) again"):
        load_backbone(ModelConfig(f"local-dir:{folder}"))
