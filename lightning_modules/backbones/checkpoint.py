"""Weights from a file, whatever wrote it: safetensors or a plain state dict, whole model or image tower only."""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from configs.errors import CheckpointError

Weights = dict[str, Tensor]

# Where trainers put the model's weights: Lightning and open_clip, TeCoA's image tower, and others.
_ENTRIES = ("vision_encoder_state_dict", "state_dict", "model_state_dict", "model")
# What wrappers prepend: DistributedDataParallel, torch.compile, LightningModules around a backbone.
_WRAPPERS = ("module.", "_orig_mod.", "model.", "backbone.", "clip.")
# Numbers that OpenAI's archives keep beside the weights.
_NOT_WEIGHTS = ("input_resolution", "context_length", "vocab_size")


def read_weights(path: Path) -> Weights:
    """The weights in a file, without the wrappers' prefixes.

    Nothing in the file is run: pickles are read with `weights_only=True`.

    Raises:
        CheckpointError: no such file, not readable, or a pickle with code in it.
    """
    if not path.is_file():
        raise CheckpointError(
            f"{path} is not a file; model.checkpoint takes a file of weights (a folder: model.name=local-dir:)"
        )
    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    for entry in _ENTRIES:
        if isinstance(content.get(entry), Mapping):
            content = content[entry]
            break
    weights = {key: value for key, value in content.items() if isinstance(value, Tensor) and key not in _NOT_WEIGHTS}
    if not weights:
        raise CheckpointError(
            f"{path} holds no weights at its top level or under {', '.join(_ENTRIES)}; save model.state_dict()"
        )
    return _unwrap(weights)


def load_weights(clip: nn.Module, path: Path) -> bool:
    """Replaces the weights of an open_clip model by a file's, all of them or the image tower's.

    Returns:
        Whether the file held the whole model.

    Raises:
        CheckpointError: as `read_weights`, or another architecture; names the first key that does not fit.
    """
    weights = read_weights(path)
    visual_only = not any(key == "logit_scale" or key.startswith("visual.") for key in weights)
    if all(key.startswith("visual.") for key in weights):
        weights = _without_prefix(weights, "visual.")
        visual_only = True
    module = clip.get_submodule("visual") if visual_only else clip
    _load_strictly(module, weights, path)
    return not visual_only


def _read_safetensors(path: Path) -> dict[str, Any]:
    try:
        return dict(load_file(path))
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} can't be read as safetensors ({error}); copy the file again") from error


def _read_torch(path: Path) -> dict[str, Any]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} is a pickle with more than tensors in it, and code from a checkpoint is never run; "
            "save its weights with safetensors.torch.save_file and set model.checkpoint to that file"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} can't be read as a state dict ({_first_line(error)}); copy the file again, or save its weights "
            "with safetensors.torch.save_file"
        ) from error
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, not a state dict; save model.state_dict()")
    return dict(content)


def _unwrap(weights: Weights) -> Weights:
    """Strips wrappers' prefixes; where only some keys have one (a LightningModule's), drops the others."""
    for _ in _WRAPPERS:
        for prefix in _WRAPPERS:
            if any(key.startswith(prefix) for key in weights):
                weights = _without_prefix(weights, prefix)
    return weights


def _without_prefix(weights: Weights, prefix: str) -> Weights:
    return {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}


def _load_strictly(module: nn.Module, weights: Weights, path: Path) -> None:
    expected = module.state_dict()
    for key in expected.keys() & weights.keys():
        if expected[key].numel() == weights[key].numel() == 1:  # open_clip's logit scale has had 0 and 1 dimensions
            weights[key] = weights[key].reshape(expected[key].shape)
    for key in [*expected, *weights]:
        in_file, in_model = _shape(weights.get(key)), _shape(expected.get(key))
        if in_file != in_model:
            raise CheckpointError(
                f"{path} is of another architecture: {key} is {in_file} in the file and {in_model} in the model; "
                "set model.name to the checkpoint's architecture"
            )
    module.load_state_dict(weights)


def _shape(value: Tensor | None) -> str:
    return "absent" if value is None else str(tuple(value.shape))


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
