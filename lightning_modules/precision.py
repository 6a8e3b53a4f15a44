"""Towers in bfloat16, and nothing else."""

from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from lightning.pytorch.plugins.precision import HalfPrecision
from torch import nn

from lightning_modules.backbones.backbone import Backbone


class Bfloat16(HalfPrecision):
    """`bf16-true` for models whose input is attacked.

    Lightning's own casts batches, module and torch's default type: pixels then move by up to 1/512 before anything sees
    them, mean, deviation and temperature are rounded, and the scalars of a hyperbolic head are trained in 8 bits. Here
    the weights of both towers are bfloat16, which cast their own input. The rest stays as it is.
    """

    def __init__(self) -> None:
        super().__init__("bf16-true")

    def convert_module(self, module: nn.Module) -> nn.Module:
        """Casts the towers of every backbone in a module, in place."""
        for part in module.modules():
            if isinstance(part, Backbone):
                scale = part.clip.get_parameter("logit_scale")
                exact = scale.detach().clone()
                part.clip.to(torch.bfloat16)
                scale.data = exact
        return module

    def convert_input(self, data: Any) -> Any:
        """Leaves batches alone."""
        return data

    @contextmanager
    def forward_context(self) -> Generator[None, None, None]:
        """Leaves torch's default type alone."""
        yield

    def tensor_init_context(self) -> AbstractContextManager[None]:
        """Leaves torch's default type alone."""
        return nullcontext()

    def module_init_context(self) -> AbstractContextManager[None]:
        """Leaves torch's default type alone."""
        return nullcontext()
