"""The blocks that an image tower is a stack of, and two ways to run them."""

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from configs.errors import ConfigError

# Of open_clip's transformers, timm's transformers, timm's other staged towers, and ResNets of both.
_STACKS = (("transformer.resblocks",), ("blocks",), ("stages",), ("layer1", "layer2", "layer3", "layer4"))


def blocks(visual: nn.Module) -> list[nn.Module]:
    """The blocks of an image tower, of open_clip or of timm within open_clip, in the order in which they run.

    Raises:
        ConfigError: a tower of another make.
    """
    trunk = getattr(visual, "trunk", visual)
    modules = dict(trunk.named_modules())
    for names in _STACKS:
        if all(name in modules for name in names):
            return [block for name in names for block in modules[name].children()]
    raise ConfigError(
        f"the blocks of this model's image tower ({type(trunk).__name__}) are not known, so that they can be neither "
        "computed twice, nor compiled, nor sharded; set trainer.gradient_checkpointing=false, trainer.compile=none and "
        "trainer.strategy=auto"
    )


@contextmanager
def recomputed(visual: nn.Module) -> Iterator[None]:
    """Has every block of an image tower keep its input alone, and run again when a gradient asks for the rest (Chen et
    al. 2016), as long as the context lasts. Works within `torch.autograd.grad` too, as attacks use it, and changes no
    number.

    Raises:
        ConfigError: a tower of another make; batch normalisation that is being trained, whose statistics a second run
            would move a second time.
    """
    kinds = [(block, type(block)) for block in blocks(visual)]
    if any(isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.training for layer in visual.modules()):
        raise ConfigError(
            "trainer.gradient_checkpointing would move the statistics of batch normalisation twice a step; set it to "
            "false, or choose an image tower without"
        )
    for block, kind in kinds:
        block.__class__ = _recomputed(kind)  # type: ignore[arg-type]  # Module's hash is typed as a function
    try:
        yield
    finally:
        for block, kind in kinds:
            block.__class__ = kind


@functools.cache
def _recomputed(kind: type[nn.Module]) -> type[nn.Module]:
    """A block's class, made to recompute; a class rather than a hook, so that copies of a block are whole."""

    class Recomputed(kind):  # type: ignore[misc, valid-type]
        def forward(self, *inputs: Any, **settings: Any) -> Any:
            if not torch.is_grad_enabled():
                return kind.forward(self, *inputs, **settings)
            run = functools.partial(kind.forward, self)
            return checkpoint(run, *inputs, use_reentrant=False, **settings)

    Recomputed.__name__ = Recomputed.__qualname__ = f"Recomputed{kind.__name__}"
    return Recomputed


@contextmanager
def compiled(visual: nn.Module, device: torch.device) -> Iterator[None]:
    """Has torch.compile take every block of an image tower, as long as the context lasts, for a device, where the tower
    need not be yet. Blocks rather than the tower: a transformer's are all alike, and compile once.

    Raises:
        ConfigError: a tower of another make; nothing on this machine that could compile.
    """
    found = blocks(visual)
    _check_compiler(device)
    for block in found:
        block.compile()
    try:
        yield
    finally:
        for block in found:
            block._compiled_call_impl = None


def _check_compiler(device: torch.device) -> None:
    """Compiles a sum."""
    try:
        torch.compile(torch.add, fullgraph=True)(torch.ones(2, device=device), 1)
    except Exception as error:  # whatever is missing: a compiler, its headers, Triton
        compiler = "a C++ compiler and Triton" if device.type == "cuda" else "a C++ compiler"
        raise ConfigError(
            f"trainer.compile=default finds nothing to compile with on this machine ({type(error).__name__}: "
            f"{str(error).splitlines()[0]}); install {compiler}, or set trainer.compile=none"
        ) from error
