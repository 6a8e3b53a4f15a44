"""What a backbone promises: pixels in, embeddings out, preprocessing inside, errors that name the remedy."""

import json
from pathlib import Path

import open_clip
import pytest
import torch
import torch.nn.functional as F

from configs.errors import CheckpointError, ConfigError
from configs.schema.model import ModelConfig
from lightning_modules.backbones import class_features, load_backbone
from lightning_modules.backbones.load import MINI, _registered

TEMPLATES = ("a {c}", "a picture of a {c}, drawn")


@pytest.fixture
def pixels() -> torch.Tensor:
    return torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def test_preprocessing_is_inside(tiny_vit: str, pixels: torch.Tensor) -> None:
    """The embedding equals the bare model's of the pixels that open_clip's own transform gives for the same picture."""
    backbone = load_backbone(ModelConfig(tiny_vit))
    model, _, transform = open_clip.create_model_and_transforms(tiny_vit)
    normalise = transform.transforms[-1]
    with torch.no_grad():
        torch.testing.assert_close(backbone.embed_image(pixels), model.eval().encode_image(normalise(pixels)))
        torch.testing.assert_close(backbone.logit_scale, model.logit_scale.exp())


def test_resizes_only_other_sizes_and_passes_gradients(tiny_vit: str, pixels: torch.Tensor) -> None:
    backbone = load_backbone(ModelConfig(tiny_vit))
    large = F.interpolate(pixels, (57, 45), mode="nearest").requires_grad_()
    assert torch.equal(backbone.normalise(pixels), (pixels - backbone.mean) / backbone.std)
    assert backbone.normalise(large).shape == pixels.shape
    (gradient,) = torch.autograd.grad(backbone.embed_image(large).sum(), large)
    assert gradient.shape == large.shape
    assert gradient.abs().sum() > 0


def test_a_constant_picture_survives_the_resize(tiny_vit: str) -> None:
    backbone = load_backbone(ModelConfig(tiny_vit))
    constant = torch.full((1, 3, 50, 70), 0.25)
    torch.testing.assert_close(backbone.normalise(constant), backbone.normalise(torch.full((1, 3, 32, 32), 0.25)))


def test_bytes_are_refused(tiny_vit: str) -> None:
    with pytest.raises(TypeError, match="uint8"):
        load_backbone(ModelConfig(tiny_vit)).embed_image(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))


def test_half_precision_weights_give_float32_embeddings(tiny_vit: str, pixels: torch.Tensor) -> None:
    backbone = load_backbone(ModelConfig(tiny_vit))
    exact = backbone.embed_image(pixels)
    rough = backbone.to(torch.bfloat16).embed_image(pixels)
    assert rough.dtype == torch.float32
    torch.testing.assert_close(rough, exact, rtol=0.1, atol=0.1)


def test_chunks_do_not_change_text(tiny_vit: str) -> None:
    backbone = load_backbone(ModelConfig(tiny_vit))
    texts = ["a cat", "a dog", "a much longer caption about a cow", "a cat", "x"]
    whole = backbone.embed_text(texts)
    torch.testing.assert_close(backbone.embed_text(texts, chunk=2), whole)
    assert torch.equal(whole[0], whole[3])


def test_channels_last_changes_the_order_of_sums_only(tiny_resnet: str, pixels: torch.Tensor) -> None:
    backbone = load_backbone(ModelConfig(tiny_resnet))
    before = backbone.embed_image(pixels)
    torch.testing.assert_close(backbone.channels_last().embed_image(pixels), before, rtol=1e-4, atol=1e-5)


def test_logit_scale_is_kept_in_bounds(tiny_vit: str) -> None:
    backbone = load_backbone(ModelConfig(tiny_vit))
    for before, after in ((9.0, 100.0), (-1.0, 1.0), (1.5, torch.tensor(1.5).exp().item())):
        torch.nn.init.constant_(backbone.clip.get_parameter("logit_scale"), before)
        backbone.clamp_logit_scale()
        assert backbone.logit_scale.item() == pytest.approx(after)


def test_class_features_are_mean_directions(tiny_vit: str) -> None:
    """Against the definition, a class at a time; the classes' order and company don't matter."""
    backbone = load_backbone(ModelConfig(tiny_vit))
    names = ["red square", "disc", "{odd} name"]
    features = class_features(backbone, names, TEMPLATES)
    for name, feature in zip(names, features, strict=True):
        prompts = [template.replace("{c}", name) for template in TEMPLATES]
        units = [embedding / embedding.norm() for embedding in backbone.embed_text(prompts)]
        mean = torch.stack(units).sum(dim=0)
        torch.testing.assert_close(feature, mean / mean.norm())
    assert not features.requires_grad


def test_class_features_leave_modes_alone(tiny_resnet: str) -> None:
    backbone = load_backbone(ModelConfig(tiny_resnet)).train()
    backbone.visual.eval()
    before = [module.training for module in backbone.modules()]
    class_features(backbone, ["disc"], TEMPLATES)
    assert [module.training for module in backbone.modules()] == before


@pytest.mark.parametrize("templates", [(), ("a picture",)])
def test_templates_must_name_the_class(tiny_vit: str, templates: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match="template"):
        class_features(load_backbone(ModelConfig(tiny_vit)), ["disc"], templates)


def test_the_mini_model_is_small() -> None:
    backbone = load_backbone(ModelConfig("mini", pretrained="none"))
    assert backbone.image_size == 64
    stored = sum(value.numel() * (2 if value.ndim > 1 else 4) for value in backbone.clip.state_dict().values())
    assert stored < 15e6
    assert backbone.embed_image(torch.rand(1, 3, 64, 64)).shape == backbone.embed_text(["a cat"]).shape == (1, 256)


def test_a_tag_brings_its_activation() -> None:
    """open_clip only warns where a tag was trained with another activation."""
    assert _registered("ViT-B-32", ModelConfig("ViT-B-32", "openai"))["quick_gelu"] is True
    assert "quick_gelu" not in _registered("ViT-B-32", ModelConfig("ViT-B-32", "laion2b_s34b_b79k"))


@pytest.mark.parametrize(
    ("config", "kind", "words"),
    [
        (ModelConfig("vit-b32"), ConfigError, ["vit-b32", "did you mean ViT-B-32"]),
        (ModelConfig("ViT-B-32", "opnai"), ConfigError, ["opnai", "did you mean openai"]),
        (ModelConfig("ViT-B-32"), ConfigError, ["model.pretrained", "openai"]),
        (ModelConfig("mini", "openai"), ConfigError, ["openai", "brings its own weights"]),
        (ModelConfig("local-dir:/no/such/folder"), CheckpointError, ["/no/such/folder", "open_clip_config.json"]),
    ],
)
def test_errors_name_the_remedy(config: ModelConfig, kind: type[Exception], words: list[str]) -> None:
    with pytest.raises(kind) as caught:
        load_backbone(config)
    assert all(word in str(caught.value) for word in words)


def test_a_folder_without_weights_is_not_random(tmp_path: Path) -> None:
    (tmp_path / "open_clip_config.json").write_bytes((MINI / "open_clip_config.json").read_bytes())
    with pytest.raises(CheckpointError, match="holds no weights"):
        load_backbone(ModelConfig(f"local-dir:{tmp_path}"))


def test_a_folder_without_its_merges_is_refused(tmp_path: Path) -> None:
    """CLIP's 49,408 tokens would reach beyond the embedding's rows."""
    (tmp_path / "open_clip_config.json").write_bytes((MINI / "open_clip_config.json").read_bytes())
    with pytest.raises(CheckpointError, match=r"bpe\.txt\.gz"):
        load_backbone(ModelConfig(f"local-dir:{tmp_path}", pretrained="none"))


def test_a_folder_of_another_architecture_names_shapes(tiny_vit: str, tmp_path: Path) -> None:
    folder = Path(tiny_vit.removeprefix("local-dir:"))
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    config = json.loads((tmp_path / "open_clip_config.json").read_text())
    config["model_cfg"]["embed_dim"] = 24
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"16.*24"):
        load_backbone(ModelConfig(f"local-dir:{tmp_path}"))
