"""Checkpoints in the layouts of their authors, built from a tiny ViT: the same logits, or one clear sentence."""

import json
import re
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from configs.errors import CheckpointError, ConfigError
from configs.schema.model import ModelConfig
from lightning_modules.backbones import Backbone, load_backbone

Weights = dict[str, Tensor]
TEXTS = ["a red square", "a woodpecker", "something else"]


@pytest.fixture(autouse=True)
def _warnings_fail() -> Iterator[None]:
    """A layout that is read in full is read without a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        yield


@pytest.fixture
def tuned(tiny_vit: str) -> Backbone:
    """A model whose image tower was moved a little, as fine-tuning does."""
    backbone = load_backbone(ModelConfig(tiny_vit))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in backbone.visual.parameters():
            parameter.add_(0.2 * parameter.std().nan_to_num(0.1) * torch.randn(parameter.shape, generator=generator))
    return backbone


@torch.no_grad()
def logits(backbone: Backbone) -> Tensor:
    pixels = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    images, texts = (F.normalize(each, dim=-1) for each in (backbone.embed_image(pixels), backbone.embed_text(TEXTS)))
    return backbone.logit_scale * images @ texts.T


def prefixed(weights: Weights, prefix: str) -> Weights:
    return {prefix + name: value for name, value in weights.items()}


def lineage_of_tecoa(tower: Weights, prompt: Tensor, prefix: str, accuracy: Any = 0.0) -> dict[str, Any]:
    """TeCoA's own trainer, and PMG-AFT's, which wrap their prompters for several GPUs, and TGA-ZSR's, which does not.
    All keep the tower's names bare, an optimiser, and a best accuracy that numpy took the mean of."""
    optimiser = torch.optim.SGD(nn.ParameterList([nn.Parameter(value.clone()) for value in tower.values()]), lr=0.1)
    return {
        "epoch": 10,
        "state_dict": {},
        "add_prompter": {f"{prefix}prompt": prompt},
        "vision_encoder_state_dict": tower,
        "best_acc1": accuracy,
        "optimizer": optimiser.state_dict(),
    }


NONE = torch.zeros(1, 0, 768)
LAYOUTS = {
    "RobustVLM: TeCoA and FARE": lambda tower: tower,
    "RobustVLM, wrapped": lambda tower: prefixed(tower, "module.model."),
    "RobustVLM, fp16": lambda tower: {name: value.half() for name, value in tower.items()},
    "TeCoA": lambda tower: lineage_of_tecoa(tower, NONE, "module."),
    "PMG-AFT": lambda tower: lineage_of_tecoa(tower, NONE, "module.", np.mean([40.0, 50.0])),
    "TGA-ZSR": lambda tower: lineage_of_tecoa(tower, NONE, "", np.float32(45)),
    "parallel tower": lambda tower: {"vision_encoder_state_dict": prefixed(tower, "module.")},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_towers_give_the_logits_of_the_model_that_they_come_from(
    layout: str, tuned: Backbone, tiny_vit: str, tmp_path: Path
) -> None:
    torch.save(LAYOUTS[layout](tuned.visual.state_dict()), tmp_path / "checkpoint.pth.tar")
    loaded = load_backbone(ModelConfig(tiny_vit, checkpoint=str(tmp_path / "checkpoint.pth.tar")))
    if layout.endswith("fp16"):
        torch.testing.assert_close(logits(loaded), logits(tuned), rtol=1e-2, atol=1e-2)
    else:
        assert torch.equal(logits(loaded), logits(tuned))
    assert not torch.equal(logits(loaded), logits(load_backbone(ModelConfig(tiny_vit))))


def test_what_numpy_1_wrote(tuned: Backbone, tiny_vit: str, tmp_path: Path) -> None:
    """Checkpoints of 2023 call numpy's modules by their names of then."""
    path = tmp_path / "checkpoint.pth.tar"
    torch.save(lineage_of_tecoa(tuned.visual.state_dict(), NONE, "", np.float64(45)), path, pickle_protocol=2)
    rename_numpy(path)
    assert torch.equal(logits(load_backbone(ModelConfig(tiny_vit, checkpoint=str(path)))), logits(tuned))


def rename_numpy(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    renamed = {name: content.replace(b"cnumpy._core.", b"cnumpy.core.") for name, content in members.items()}
    assert renamed != members
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, content in renamed.items():
            archive.writestr(name, content)


def test_a_prompt_beside_the_tower_is_told(tuned: Backbone, tiny_vit: str, tmp_path: Path) -> None:
    """Published figures are with it."""
    path = tmp_path / "checkpoint.pth.tar"
    torch.save(lineage_of_tecoa(tuned.visual.state_dict(), torch.ones(1, 5, 768), "module."), path)
    with pytest.warns(UserWarning, match=rf"{re.escape(str(path))}.*add_prompter\.module\.prompt.* not loaded"):
        load_backbone(ModelConfig(tiny_vit, checkpoint=str(path)))


def test_a_prompt_alone_is_no_model(tiny_vit: str, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pth.tar"
    prompts = {"state_dict": {"module.pad_up": torch.ones(1, 3, 30, 224)}, "add_prompter": {"module.prompt": NONE}}
    torch.save(prompts, path)
    with pytest.raises(CheckpointError, match=r"visual prompt \(state_dict\.module\.pad_up\) and no image tower"):
        load_backbone(ModelConfig(tiny_vit, checkpoint=str(path)))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"prompt_pos_embedding": torch.zeros(5, 32)}, r"prompt_pos_embedding is \(5, 32\) in the file and absent"),
        ({"positional_embedding": torch.zeros(50, 32)}, r"positional_embedding is \(50, 32\) .* and \(17, 32\)"),
        ({"ln_post.bias": None}, r"ln_post\.bias is absent in the file and \(32,\)"),
    ],
)
def test_the_first_strange_key_is_named(
    change: dict[str, Tensor | None], words: str, tuned: Backbone, tiny_vit: str, tmp_path: Path
) -> None:
    tower = tuned.visual.state_dict() | change
    torch.save({key: value for key, value in tower.items() if value is not None}, tmp_path / "tower.pt")
    with pytest.raises(CheckpointError, match=words):
        load_backbone(ModelConfig(tiny_vit, checkpoint=str(tmp_path / "tower.pt")))


def test_names_of_another_library(tiny_vit: str, tmp_path: Path) -> None:
    weights = {"vision_model.embeddings.class_embedding": torch.zeros(32)}
    torch.save(weights, tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"begins with vision_model\.embeddings.*the model with class_embedding"):
        load_backbone(ModelConfig(tiny_vit, checkpoint=str(tmp_path / "pytorch_model.bin")))


def test_a_program_is_not_run(tiny_vit: str, tmp_path: Path) -> None:
    """OpenAI publishes TorchScript."""
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), tmp_path / "ViT-B-32.pt")
    clear = pytest.raises(CheckpointError, match=r"TorchScript.*model\.pretrained=openai")
    with pytest.warns(UserWarning, match="TorchScript"), clear:  # the warning is torch's
        load_backbone(ModelConfig(tiny_vit, checkpoint=str(tmp_path / "ViT-B-32.pt")))


def test_a_tower_of_another_training_is_told(tuned: Backbone, tiny_vit: str, tmp_path: Path) -> None:
    """The text tower of one model says nothing of another's images."""
    tower = {name: torch.randn(value.shape) for name, value in tuned.visual.state_dict().items()}
    torch.save(tower, tmp_path / "tower.pt")
    with pytest.warns(UserWarning, match=r"does not look fine-tuned from .*model\.pretrained"):
        load_backbone(ModelConfig(tiny_vit, checkpoint=str(tmp_path / "tower.pt")))


@pytest.fixture
def twins(tiny_vit: str, tmp_path: Path) -> tuple[str, str]:
    """Names of two architectures of open_clip's list that differ in their activation alone."""
    config = json.loads((Path(tiny_vit.removeprefix("local-dir:")) / "open_clip_config.json").read_text())["model_cfg"]
    del config["text_cfg"]["vocab_size"]  # they have no merges of their own
    names = ("immunoclip-twin", "immunoclip-twin-quickgelu")
    for name, quick in zip(names, (False, True), strict=True):
        (tmp_path / f"{name}.json").write_text(json.dumps(config | {"quick_gelu": quick}))
        open_clip.add_model_config(tmp_path / f"{name}.json")
    return names


def test_an_activation_that_nothing_tells(twins: tuple[str, str], tmp_path: Path) -> None:
    """The same weights are another model under another activation, and only the name can tell."""
    plain, quick = twins
    path = tmp_path / "whole.pt"
    torch.save(load_backbone(ModelConfig(quick, "none")).clip.state_dict(), path)
    right = load_backbone(ModelConfig(quick, checkpoint=str(path)))
    with pytest.warns(UserWarning, match=rf"QuickGELU.*model\.name={quick}"):
        wrong = load_backbone(ModelConfig(plain, checkpoint=str(path)))
    assert (logits(right) - logits(wrong)).abs().max() > 1e-3


def test_openais_form_tells_its_activation(twins: tuple[str, str], tmp_path: Path) -> None:
    plain, quick = twins
    weights = load_backbone(ModelConfig(quick, "none")).clip.state_dict()
    numbers = {"input_resolution": 32, "context_length": 16, "vocab_size": 49408}
    path = tmp_path / "openai.pt"
    torch.save(weights | {name: torch.tensor(value) for name, value in numbers.items()}, path)
    with pytest.raises(ConfigError, match=rf"OpenAI's form.*model\.name={quick}"):
        load_backbone(ModelConfig(plain, checkpoint=str(path)))
    load_backbone(ModelConfig(quick, checkpoint=str(path)))
