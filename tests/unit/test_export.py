"""What is exported, open_clip opens, with the same logits to the bit."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from configs.errors import CheckpointError
from configs.schema.model import ModelConfig
from lightning_modules.backbones import Backbone, export, load_backbone

TEXTS = ["a red square", "a woodpecker", "something else"]


def logits_by_open_clip(folder: Path, pixels: Tensor) -> Tensor:
    """With open_clip alone: its model, its tokenizer, its normalisation."""
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}", bpe_path=str(folder / "bpe.txt.gz"))
    image_logits, _ = model.eval().get_logits(transform.transforms[-1](pixels), tokenizer(TEXTS))
    return image_logits


def logits(backbone: Backbone, pixels: Tensor) -> Tensor:
    images = F.normalize(backbone.embed_image(pixels), dim=-1)
    return backbone.logit_scale * images @ F.normalize(backbone.embed_text(TEXTS), dim=-1).T


@pytest.mark.parametrize("name", ["mini", "tiny_vit", "tiny_resnet"])
@pytest.mark.parametrize("half", [False, True])
@torch.no_grad()
def test_open_clip_computes_the_same(name: str, half: bool, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """Bit for bit, from the model in memory where weights are stored in full, and from the loaded folder always."""
    reference = name if name == "mini" else request.getfixturevalue(name)
    backbone = load_backbone(ModelConfig(reference, pretrained="none"))
    pixels = torch.rand(4, 3, backbone.image_size, backbone.image_size)
    folder = export(backbone, tmp_path / "model", half=half)
    opened = logits_by_open_clip(folder, pixels)
    assert torch.equal(opened, logits(load_backbone(ModelConfig(f"local-dir:{folder}")), pixels))
    if not half:
        assert torch.equal(opened, logits(backbone, pixels))


def test_training_layout_is_not_stored(tiny_resnet: str, tmp_path: Path) -> None:
    backbone = load_backbone(ModelConfig(tiny_resnet))
    export(backbone, tmp_path / "one")
    export(backbone.channels_last(), tmp_path / "two")
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_exporting_again_replaces(tiny_vit: str, tmp_path: Path) -> None:
    backbone = load_backbone(ModelConfig(tiny_vit))
    folder = export(backbone, tmp_path / "deep" / "model")
    (folder / "leftover.txt").touch()
    torch.nn.init.constant_(backbone.clip.get_parameter("logit_scale"), 2.0)
    export(backbone, folder)
    assert not (folder / "leftover.txt").exists()
    assert load_backbone(ModelConfig(f"local-dir:{folder}")).clip.get_parameter("logit_scale") == 2.0
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


def test_the_card_says_how_to_open_it(tiny_vit: str, tmp_path: Path) -> None:
    folder = export(load_backbone(ModelConfig(tiny_vit)), tmp_path / "model")
    lines = (folder / "README.md").read_text().replace("FOLDER", str(folder)).split("```python\n")[1].split("```")[0]
    names: dict[str, Any] = {}
    exec(lines, names)
    assert names["model"].vocab_size == names["tokenizer"].vocab_size


def test_what_is_no_model_is_not_replaced(tiny_vit: str, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(CheckpointError, match="not empty"):
        export(load_backbone(ModelConfig(tiny_vit)), tmp_path)
    assert contents(tmp_path) == {"thesis.txt": b"mine"}


def test_a_full_disk_leaves_the_old_model(tiny_vit: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    export(load_backbone(ModelConfig(tiny_vit)), folder)
    before = contents(folder)
    with files_up_to(4096), pytest.raises(CheckpointError, match=r"can't be written.*free some space"):
        export(load_backbone(ModelConfig(tiny_vit)), folder)
    assert contents(folder) == before
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """The system refuses to let a file grow beyond `size` bytes, as a full disk would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}
