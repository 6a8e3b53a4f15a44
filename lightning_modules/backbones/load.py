"""A backbone from a name: the model that the project ships, open_clip's, a hub's or a folder's; a checkpoint on top."""

import difflib
import json
import warnings
from pathlib import Path
from typing import Any

import open_clip
from open_clip.pretrained import get_pretrained_cfg, list_pretrained_tags_by_model
from torch import nn

from configs.errors import CheckpointError, ConfigError
from configs.schema.model import ModelConfig
from lightning_modules.backbones.backbone import Backbone
from lightning_modules.backbones.checkpoint import Loaded, load_weights
from lightning_modules.backbones.export import HEAD_FILE
from lightning_modules.backbones.tokenizer import MERGES_FILE, Tokenizer
from lightning_modules.heads import HyperbolicHead
from lightning_modules.open_world.immunity import SETTINGS, Immunity

MINI = Path(__file__).parent / "mini"  # the model that the project ships, in the layout of open_clip's local-dir
_LOCAL, _HUB = "local-dir:", "hf-hub:"
_RANDOM = "none"

Architecture = dict[str, Any]


def load_backbone(config: ModelConfig) -> Backbone:
    """The model of a configuration, on the CPU, in eval mode.

    A tag's activation wins over the architecture's: `ViT-B-32` with `openai` gets QuickGELU, which it was trained with.
    With a checkpoint and no tag only the name can tell, `ViT-B-32-quickgelu`, and there is a warning where it does not.

    Raises:
        ConfigError: unknown architecture or tag, or a tag for a model that brings its own weights; a checkpoint that
            lacks the text tower, or is OpenAI's where the model has another activation.
        CheckpointError: weights missing, unreadable, or of another architecture.
    """
    reference = f"{_LOCAL}{MINI}" if config.name == "mini" else config.name
    brings_weights = reference.startswith((_LOCAL, _HUB))
    if not brings_weights:
        reference = reference.replace("/", "-")  # OpenAI writes ViT-B/32
    architecture = _bundled(reference, config) if brings_weights else _registered(reference, config)
    clip = _create(reference, config, architecture)
    if config.checkpoint is not None:
        loaded = load_weights(clip, Path(config.checkpoint))
        _check_towers(loaded, config, brings_weights)
        if not brings_weights and not architecture.get("quick_gelu"):
            _check_activation(loaded, config, reference)
    visual: Any = clip.get_submodule("visual")
    merges = _merges(reference)
    tokenizer = _tokenizer(reference, architecture, merges)
    backbone = Backbone(clip, architecture, dict(visual.preprocess_cfg), tokenizer, merges).eval()
    backbone.hyperbolic = _head(reference)
    backbone.immunity = _immunity(reference)
    return backbone


def _check_towers(loaded: Loaded, config: ModelConfig, brings_weights: bool) -> None:
    """Raises where the text tower would be random, warns where it is not the one that the image tower was trained with.

    A tower of random weights resembles no other, so that nothing is said about one that replaces it.
    """
    if loaded.whole or config.pretrained == _RANDOM:
        return
    if not brings_weights and config.pretrained is None:
        raise ConfigError(
            f"{config.checkpoint} holds the image tower only and the text tower would be random; "
            "set model.pretrained to the tag that the checkpoint was trained from"
        )
    if not loaded.kin:
        warnings.warn(
            f"{config.checkpoint} does not look fine-tuned from {config.pretrained or config.name}, with whose text "
            "tower it is compared; set model.pretrained to the tag that it was trained from",
            stacklevel=3,
        )


def _check_activation(loaded: Loaded, config: ModelConfig, name: str) -> None:
    """For a model without QuickGELU that has a twin with it: weights of one quietly work less well in the other."""
    twin = f"{name}-quickgelu"
    if config.pretrained not in (None, _RANDOM) or twin not in open_clip.list_models():
        return
    if loaded.openai:
        raise ConfigError(
            f"{config.checkpoint} is in OpenAI's form, whose models have QuickGELU, and {config.name} has GELU; set "
            f"model.name={twin}"
        )
    warnings.warn(
        f"nothing in {config.checkpoint} tells whether it was trained with GELU, as {config.name} has, or QuickGELU, "
        f"as OpenAI's models; if it comes from those, set model.name={twin}",
        stacklevel=3,
    )


def _head(reference: str) -> HyperbolicHead | None:
    path = Path(reference.removeprefix(_LOCAL)) / HEAD_FILE
    if not reference.startswith(_LOCAL) or not path.is_file():
        return None
    try:
        return HyperbolicHead.from_dict(json.loads(path.read_text()))
    except ValueError as error:
        raise CheckpointError(f"{path} is not JSON ({error}); export the model again") from error


def _immunity(reference: str) -> Immunity | None:
    folder = Path(reference.removeprefix(_LOCAL))
    return Immunity.load(folder) if reference.startswith(_LOCAL) and (folder / SETTINGS).is_file() else None


def _bundled(reference: str, config: ModelConfig) -> Architecture:
    """Checks a model that brings its own weights, and returns its architecture."""
    if config.pretrained not in (None, _RANDOM):
        raise ConfigError(
            f"model.pretrained={config.pretrained} has no effect on model.name={config.name}, which brings its own "
            "weights; leave it null, or none for random weights"
        )
    if reference.startswith(_LOCAL):
        _check_folder(Path(reference.removeprefix(_LOCAL)), config)
    try:
        architecture: Architecture = open_clip.get_model_config(reference)
    except Exception as error:  # the hub's client raises dozens of kinds
        raise CheckpointError(f"model.name={reference} has no configuration to read: {brief(error)}") from error
    return architecture


def _check_folder(folder: Path, config: ModelConfig) -> None:
    if not (folder / "open_clip_config.json").is_file():
        raise CheckpointError(f"{folder} has no open_clip_config.json; local-dir: takes a folder in open_clip's layout")
    weights = [path for path in folder.iterdir() if path.suffix in (".safetensors", ".bin", ".pth")]
    if not weights and config.pretrained is None:
        raise CheckpointError(
            f"{folder} holds no weights (model.safetensors); restore the file, or set model.pretrained=none for "
            "random weights"
        )


def _registered(name: str, config: ModelConfig) -> Architecture:
    """Checks a name and a tag of open_clip's own list, and returns the architecture."""
    architecture: Architecture | None = open_clip.get_model_config(name)
    if architecture is None:
        raise ConfigError(
            f"model.name={config.name} is not known to open_clip{_did_you_mean(name, open_clip.list_models())}"
        )
    tags = list_pretrained_tags_by_model(name)
    if config.pretrained is None and config.checkpoint is None:
        raise ConfigError(
            f"model.name={config.name} needs model.checkpoint, or model.pretrained: {_some(tags)}, or none for random "
            "weights"
        )
    if config.pretrained in (None, _RANDOM):
        return architecture
    tag: dict[str, Any] = get_pretrained_cfg(name, str(config.pretrained))
    if not tag:
        wrong = f"model.pretrained={config.pretrained} is no tag of {config.name}"
        raise ConfigError(f"{wrong}{_did_you_mean(str(config.pretrained), tags)}; it has {_some(tags)}")
    # open_clip only warns where the architecture's activation is not the tag's, and the model is then quietly worse.
    return architecture | ({"quick_gelu": True} if tag.get("quick_gelu") else {})


def _some(tags: list[str], most: int = 6) -> str:
    rest = f" and {len(tags) - most} more" if len(tags) > most else ""
    return ", ".join(tags[:most]) + rest if tags else "no tags"


def _did_you_mean(name: str, known: list[str]) -> str:
    by_lower = {candidate.lower(): candidate for candidate in known}
    close = difflib.get_close_matches(name.lower(), by_lower, n=3)
    return f"; did you mean {' or '.join(by_lower[match] for match in close)}?" if close else ""


def _create(reference: str, config: ModelConfig, architecture: Architecture) -> nn.Module:
    random = config.pretrained == _RANDOM or (config.pretrained is None and not reference.startswith((_LOCAL, _HUB)))
    try:
        clip: nn.Module = open_clip.create_model(
            reference,
            pretrained=None if random else config.pretrained,
            load_weights=not random,
            require_pretrained=not random,
            pretrained_text=False,
            force_quick_gelu=bool(architecture.get("quick_gelu", False)),
        )
    except Exception as error:  # downloads, files and shapes: whatever open_clip and the hub's client raise
        raise CheckpointError(
            f"model.name={reference}, model.pretrained={config.pretrained}: {brief(error)}"
        ) from error
    return clip


def _merges(reference: str) -> Path | None:
    merges = Path(reference.removeprefix(_LOCAL)) / MERGES_FILE
    return merges if reference.startswith(_LOCAL) and merges.is_file() else None


def _tokenizer(reference: str, architecture: Architecture, merges: Path | None) -> Tokenizer:
    options = {} if merges is None else {"bpe_path": str(merges)}
    try:
        encode = open_clip.get_tokenizer(reference, **options)
    except Exception as error:  # vocabularies of the hub: a missing package, no network
        raise CheckpointError(f"the tokenizer of model.name={reference} can't be loaded: {brief(error)}") from error
    rows = architecture["text_cfg"].get("vocab_size")
    if isinstance(encode, open_clip.SimpleTokenizer) and rows is not None and encode.vocab_size > rows:
        raise CheckpointError(
            f"model.name={reference} embeds {rows} tokens and its tokenizer has {encode.vocab_size}; "
            f"put the model's own merges beside its configuration as {MERGES_FILE}"
        )
    return Tokenizer(encode)


def brief(error: Exception) -> str:
    """The line of an error that says most: a mismatch of shapes where there is one, or else the first."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return next((line for line in lines if "size mismatch" in line), lines[0])[:300]
