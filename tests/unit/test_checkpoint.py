"""Weights from files: every wrapper's layout, and nothing that is run, guessed or half loaded."""

import json
import os
import re
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from configs.errors import CheckpointError, ConfigError
from configs.schema.model import ModelConfig
from lightning_modules.backbones import Backbone, load_backbone
from lightning_modules.backbones.checkpoint import read_weights

Weights = dict[str, Tensor]


@pytest.fixture
def trained(tiny_vit: str) -> Backbone:
    """A model with other weights than the folder's."""
    backbone = load_backbone(ModelConfig(tiny_vit))
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.add_(0.01)
    return backbone


def prefixed(weights: Weights, prefix: str) -> Weights:
    return {prefix + name: value for name, value in weights.items()}


def lightning_checkpoint(weights: Weights) -> dict[str, Any]:
    """What `Trainer.save_checkpoint` writes for a module that has more than a backbone."""
    state = prefixed(weights, "backbone.clip.") | {"validation_loss.total": torch.zeros(())}
    return {"epoch": 1, "global_step": 5, "pytorch-lightning_version": "2.6.6", "state_dict": state, "callbacks": {}}


LAYOUTS = {
    "plain": lambda weights: weights,
    "data parallel": lambda weights: {"epoch": 3, "state_dict": prefixed(weights, "module."), "optimizer": {}},
    "compiled": lambda weights: prefixed(weights, "module._orig_mod."),
    "lightning": lightning_checkpoint,
    "wrapped": lambda weights: {"model": prefixed(weights, "model.")},
    "one-dimensional scale": lambda weights: weights | {"logit_scale": weights["logit_scale"].reshape(1)},
    "openai": lambda weights: weights | {"input_resolution": torch.tensor(32), "vocab_size": torch.tensor(1024)},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_whole_models(layout: str, trained: Backbone, tiny_vit: str, tmp_path: Path) -> None:
    torch.save(LAYOUTS[layout](trained.clip.state_dict()), tmp_path / "weights.pt")
    loaded = load_backbone(ModelConfig(tiny_vit, checkpoint=str(tmp_path / "weights.pt")))
    same(loaded.clip.state_dict(), trained.clip.state_dict())


VISUAL_LAYOUTS = {
    "bare tower": lambda weights: weights,
    "prefixed tower": lambda weights: prefixed(weights, "visual."),
    "module of a tower": lambda weights: prefixed(weights, "module.visual."),
    "beside a prompter": lambda weights: {
        "state_dict": {"prompter.pad": torch.zeros(3)},
        "vision_encoder_state_dict": weights,
        "best_acc1": 0.5,
    },
}


@pytest.mark.parametrize("layout", VISUAL_LAYOUTS)
def test_image_towers(layout: str, trained: Backbone, tiny_vit: str, tmp_path: Path) -> None:
    """The image tower is replaced, and the text tower stays the model's."""
    torch.save(VISUAL_LAYOUTS[layout](trained.visual.state_dict()), tmp_path / "tower.pt")
    loaded = load_backbone(ModelConfig(tiny_vit, checkpoint=str(tmp_path / "tower.pt")))
    same(loaded.visual.state_dict(), trained.visual.state_dict())
    original = load_backbone(ModelConfig(tiny_vit))
    assert torch.equal(loaded.embed_text(["a cat"]), original.embed_text(["a cat"]))


def test_safetensors_in_half_precision(trained: Backbone, tiny_vit: str, tmp_path: Path) -> None:
    half = {name: value.half().clone() for name, value in trained.clip.state_dict().items()}
    save_file(half, tmp_path / "weights.safetensors")
    loaded = load_backbone(ModelConfig(tiny_vit, checkpoint=str(tmp_path / "weights.safetensors")))
    same(loaded.clip.state_dict(), {name: value.float() for name, value in half.items()})


def test_another_architecture_names_the_key_and_both_shapes(
    trained: Backbone, tiny_vit: str, tiny_resnet: str, tmp_path: Path
) -> None:
    path, other = tmp_path / "weights.pt", tmp_path / "other.pt"
    torch.save(trained.clip.state_dict() | {"text_projection": torch.zeros(32, 99)}, path)
    torch.save(trained.clip.state_dict(), other)
    with pytest.raises(CheckpointError, match=rf"{path}.*text_projection is \(32, 99\) .* and \(32, 16\)"):
        load_backbone(ModelConfig(tiny_vit, checkpoint=str(path)))
    with pytest.raises(CheckpointError, match=r"visual\.conv1\.weight is \(32, 3, 8, 8\) in the file"):
        load_backbone(ModelConfig(tiny_resnet, checkpoint=str(other)))


@pytest.mark.parametrize("change", ["missing", "additional"])
def test_nothing_is_left_out_quietly(change: str, trained: Backbone, tiny_vit: str, tmp_path: Path) -> None:
    weights = dict(trained.clip.state_dict())
    if change == "missing":
        del weights["visual.ln_post.bias"]
    else:
        weights["visual.ln_extra.bias"] = torch.zeros(3)
    torch.save(weights, tmp_path / "weights.pt")
    with pytest.raises(CheckpointError, match=r"visual\.ln_\w+\.bias is .*absent"):
        load_backbone(ModelConfig(tiny_vit, checkpoint=str(tmp_path / "weights.pt")))


class Payload:
    """Pickles to a call."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.target),)


def test_code_in_a_pickle_is_not_run(tiny_vit: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save({"state_dict": {}, "extra": Payload(tmp_path / "ran")}, path)
    with pytest.raises(CheckpointError, match=f"{re.escape(str(path))}.*never run.*safetensors"):
        load_backbone(ModelConfig(tiny_vit, checkpoint=str(path)))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
@pytest.mark.parametrize("keep", [0, 100, 0.5, 0.999])
def test_truncated_files(suffix: str, keep: float, trained: Backbone, tmp_path: Path) -> None:
    path = tmp_path / f"weights.{suffix}"
    weights = {name: value.clone() for name, value in trained.clip.state_dict().items()}
    save_file(weights, path) if suffix == "safetensors" else torch.save(weights, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content)) if keep < 1 else int(keep)])
    with pytest.raises(CheckpointError, match=re.escape(str(path))):
        read_weights(path)


def test_files_that_hold_no_weights(tmp_path: Path) -> None:
    torch.save({"epoch": 3}, tmp_path / "empty.pt")
    torch.save([torch.zeros(3)], tmp_path / "list.pt")
    for name, words in {
        "empty.pt": "no weights",
        "list.pt": "list",
        "missing.pt": "not a file",
        ".": "local-dir",
    }.items():
        with pytest.raises(CheckpointError, match=words):
            read_weights(tmp_path / name)


def test_an_image_tower_needs_its_text_tower(trained: Backbone, tiny_vit: str, tmp_path: Path) -> None:
    """An architecture of open_clip's list has no weights of its own for the text tower."""
    config = json.loads((Path(tiny_vit.removeprefix("local-dir:")) / "open_clip_config.json").read_text())["model_cfg"]
    del config["text_cfg"]["vocab_size"]  # no merges of its own either
    (tmp_path / "immunoclip-tiny.json").write_text(json.dumps(config))
    open_clip.add_model_config(tmp_path / "immunoclip-tiny.json")
    torch.save(trained.visual.state_dict(), tmp_path / "tower.pt")
    with pytest.raises(ConfigError, match="text tower would be random"):
        load_backbone(ModelConfig("immunoclip-tiny", checkpoint=str(tmp_path / "tower.pt")))
    torch.save(load_backbone(ModelConfig("immunoclip-tiny", "none")).clip.state_dict(), tmp_path / "whole.pt")
    load_backbone(ModelConfig("immunoclip-tiny", checkpoint=str(tmp_path / "whole.pt")))


def same(found: Weights, expected: Weights) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
