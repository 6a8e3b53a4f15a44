"""Weights from a file, whatever wrote it: safetensors or a plain state dict, whole model or image tower only."""

import pickle
import warnings
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from configs.errors import CheckpointError

Weights = dict[str, Tensor]

# Where trainers put the model's weights: Lightning and open_clip, TeCoA's image tower, and others.
_ENTRIES = ("vision_encoder_state_dict", "state_dict", "model_state_dict", "model")
# What wrappers prepend: DistributedDataParallel, torch.compile, LightningModules around a backbone.
_WRAPPERS = ("module.", "_orig_mod.", "model.", "backbone.", "clip.")
# Numbers that OpenAI's archives keep beside the weights, and nobody else's.
_OPENAI = ("input_resolution", "context_length", "vocab_size")
# Where trainers of the TeCoA family (PMG-AFT, TGA-ZSR, visual prompting) put what they learnt beside the tower.
_PROMPTS = ("state_dict", "add_prompter")
_KIN = 0.5  # cosine of two towers' weights: near 1 after fine-tuning, near 0 between two trainings


class Loaded(NamedTuple):
    """What a file brought.

    whole   the whole model, not the image tower alone.
    openai  it is in the form of OpenAI's archives, whose models have QuickGELU.
    kin     the weights of the image tower resemble those that they replaced, as fine-tuned ones do.
    """

    whole: bool
    openai: bool
    kin: bool


def read_weights(path: Path) -> Weights:
    """The weights in a file, without the wrappers' prefixes.

    Nothing in the file is run: pickles are read with `weights_only=True`. What a trainer's checkpoint holds beside the
    model is left out, with a warning where that is a prompt which its figures were measured with.

    Raises:
        CheckpointError: no such file, not readable, a pickle with code in it, or a visual prompt alone.
    """
    content = _read(path)
    weights = _tensors(_entry(content))
    prompts = _prompts(content)
    if prompts and "vision_encoder_state_dict" not in content:
        raise CheckpointError(
            f"{path} holds a visual prompt ({prompts[0]}) and no image tower; take a checkpoint with "
            "vision_encoder_state_dict"
        )
    if not weights:
        raise CheckpointError(
            f"{path} holds no weights at its top level or under {', '.join(_ENTRIES)}; save model.state_dict()"
        )
    if prompts:
        warnings.warn(f"{path}: the prompt beside the image tower ({prompts[0]}) is not loaded", stacklevel=2)
    return _unwrap(weights)


def load_weights(clip: nn.Module, path: Path) -> Loaded:
    """Replaces the weights of an open_clip model by a file's, all of them or the image tower's.

    Files as their authors publish them: TeCoA's and FARE's of RobustVLM (a state dict of the image tower), those of
    TeCoA's own repository, PMG-AFT and TGA-ZSR (the tower under `vision_encoder_state_dict`, beside prompts and an
    optimiser), OpenAI's names, open_clip's and Lightning's.

    Raises:
        CheckpointError: as `read_weights`, or another architecture; names the first key that does not fit.
    """
    weights = read_weights(path)
    openai = all(key in weights for key in _OPENAI)
    weights = {key: value for key, value in weights.items() if key not in _OPENAI}
    visual_only = not any(key == "logit_scale" or key.startswith("visual.") for key in weights)
    if all(key.startswith("visual.") for key in weights):
        weights = _without_prefix(weights, "visual.")
        visual_only = True
    module = clip.get_submodule("visual") if visual_only else clip
    _check(module, weights, path)
    kin = _kin(module, weights)
    module.load_state_dict(weights)
    return Loaded(not visual_only, openai, kin)


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise CheckpointError(
            f"{path} is not a file; model.checkpoint takes a file of weights (a folder: model.name=local-dir:)"
        )
    return _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)


def _entry(content: Mapping[str, Any]) -> Mapping[str, Any]:
    """Where the weights are: the first entry that may hold them, or the top level."""
    return next((content[name] for name in _ENTRIES if isinstance(content.get(name), Mapping)), content)


def _tensors(content: Mapping[str, Any]) -> Weights:
    return {key: value for key, value in content.items() if isinstance(value, Tensor)}


def _prompts(content: Mapping[str, Any]) -> list[str]:
    """Names of what is not empty in a TeCoA-like checkpoint's prompts; those without prompts keep empty ones."""
    if "add_prompter" not in content:
        return []
    found = {place: _tensors(content[place]) for place in _PROMPTS if isinstance(content.get(place), Mapping)}
    return [f"{place}.{key}" for place, weights in found.items() for key, value in weights.items() if value.numel()]


def _read_safetensors(path: Path) -> dict[str, Any]:
    try:
        return dict(load_file(path))
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} can't be read as safetensors ({error}); copy the file again") from error


def _read_torch(path: Path) -> dict[str, Any]:
    try:
        with _numpy_scalars():
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} is a pickle with more than tensors in it, and code from a checkpoint is never run; "
            "save its weights with safetensors.torch.save_file and set model.checkpoint to that file"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError) as error:
        if "TorchScript" in str(error):
            raise CheckpointError(
                f"{path} is a TorchScript archive, which is a program, and code from a checkpoint is never run; for "
                "OpenAI's own weights set model.pretrained=openai instead"
            ) from error
        raise CheckpointError(
            f"{path} can't be read as a state dict ({_first_line(error)}); copy the file again, or save its weights "
            "with safetensors.torch.save_file"
        ) from error
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, not a state dict; save model.state_dict()")
    return dict(content)


def _numpy_scalars() -> AbstractContextManager[None]:
    """Lets numbers of numpy be read, such as the best accuracy that TeCoA-like trainers keep; numpy 1 and 2 call what
    makes them differently."""
    scalar: Any = np.float64(0).__reduce__()[0]
    kinds = [type(np.dtype(kind)) for kind in ("f8", "f4", "i8")]
    return torch.serialization.safe_globals(
        [(scalar, "numpy.core.multiarray.scalar"), (scalar, "numpy._core.multiarray.scalar"), np.dtype, *kinds]
    )


def _unwrap(weights: Weights) -> Weights:
    """Strips wrappers' prefixes; where only some keys have one (a LightningModule's), drops the others."""
    for _ in _WRAPPERS:
        for prefix in _WRAPPERS:
            if any(key.startswith(prefix) for key in weights):
                weights = _without_prefix(weights, prefix)
    return weights


def _without_prefix(weights: Weights, prefix: str) -> Weights:
    return {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}


def _check(module: nn.Module, weights: Weights, path: Path) -> None:
    """Raises CheckpointError where the weights are not exactly the module's. Reshapes single numbers in place."""
    expected = module.state_dict()
    if not expected.keys() & weights.keys():
        raise CheckpointError(
            f"{path} shares no name with the model: it begins with {next(iter(weights))}, the model with "
            f"{next(iter(expected))}; save the weights of an open_clip model, or of OpenAI's clip package"
        )
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


def _kin(module: nn.Module, weights: Weights) -> bool:
    """Whether the matrices are alike, all in one; a model without any has nothing to compare."""
    old = {key: value.float().flatten() for key, value in module.state_dict().items() if value.ndim > 1}
    if not old:
        return True
    before, after = torch.cat([*old.values()]), torch.cat([weights[key].float().flatten() for key in old])
    return bool(F.cosine_similarity(before, after.to(before), dim=0) > _KIN)


def _shape(value: Tensor | None) -> str:
    return "absent" if value is None else str(tuple(value.shape))


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
