"""Architectures without their weights."""

import logging
from typing import Any

from torch.overrides import TorchFunctionMode

from configs.schema.model import ModelConfig
from lightning_modules.backbones import Backbone, load_backbone

_DRAWS = {"normal_", "uniform_", "trunc_normal_", "kaiming_uniform_", "kaiming_normal_", "xavier_uniform_"}


def untrained(name: str) -> Backbone:
    """An architecture with random weights, without open_clip's warning that they are.

    Raises:
        ConfigError: there is no such model.
        CheckpointError: its configuration can't be had.
    """
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        return load_backbone(ModelConfig(name, pretrained="none"))
    finally:
        logging.disable(before)


def unset(name: str) -> Backbone:
    """The same with whatever lay in memory for weights: drawing them takes most of the time that a model takes to
    build."""
    with _Undrawn():
        return untrained(name)


class _Undrawn(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") in _DRAWS and args:
            return args[0]
        return func(*args, **(kwargs or {}))
