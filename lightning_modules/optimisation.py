"""Optimisers and their schedules, in steps of the optimiser."""

import math
from collections.abc import Iterable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, Literal

from torch import nn
from torch.distributed.tensor import DTensor
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from configs.errors import ConfigError
from configs.schema.module import OptimConfig


def build_optimizer(
    parameters: Iterable[tuple[str, nn.Parameter]],
    config: OptimConfig,
    total_steps: int,
    lr_factors: Mapping[str, float] = MappingProxyType({}),
) -> tuple[Optimizer, LambdaLR]:
    """The optimiser of the parameters that require a gradient, and its schedule, to be stepped after each of its steps.

    Matrices and kernels decay; norms, biases, the logit scale and other vectors do not. The groups' names say which.

    Args:
        parameters: as `module.named_parameters()` gives them.
        config: the optimiser's section of the configuration.
        total_steps: steps of the optimiser in the whole run; count them from the data plan, never through
            `trainer.estimated_stepping_batches`, which drops the loader's saved position on resume (Lightning 2.6.6,
            https://github.com/Lightning-AI/pytorch-lightning/issues/20550).
        lr_factors: of the learning rate, for parameters whose name holds the key.

    Raises:
        ConfigError: nothing to train.
    """
    groups = _groups(parameters, config, lr_factors)
    if not groups:
        raise ConfigError("no parameter requires a gradient; choose a module that trains a part of the model")
    optimizer: Optimizer
    if config.kind == "adamw":
        optimizer = AdamW(groups, lr=config.lr, betas=(config.beta1, config.beta2), fused=config.fused)
    else:
        optimizer = SGD(groups, lr=config.lr, momentum=config.momentum, fused=config.fused)
    factor = partial(lr_factor, total_steps=total_steps, warmup_steps=config.warmup_steps, schedule=config.schedule)
    return optimizer, LambdaLR(optimizer, factor)


def lr_factor(step: int, total_steps: int, warmup_steps: int, schedule: Literal["cosine", "constant"]) -> float:
    """The learning rate of a step (counted from 0) as a factor of the configured one.

    Rises linearly over `warmup_steps`, to 1 at the last of them; then constant, or down a half cosine that reaches 0 at
    `total_steps`, one after the last step (Loshchilov & Hutter 2017, equation 5, without restarts).
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    if schedule == "constant":
        return 1.0
    progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def _groups(
    parameters: Iterable[tuple[str, nn.Parameter]], config: OptimConfig, lr_factors: Mapping[str, float]
) -> list[dict[str, Any]]:
    groups: dict[str, dict[str, Any]] = {}
    for name, parameter in parameters:
        if parameter.requires_grad:
            decays = parameter.ndim >= 2
            slow = next((key for key in lr_factors if key in name), None)
            group = ("decay" if decays else "no_decay") + (f" of {slow}" if slow else "")
            group += " (shared out)" if isinstance(parameter, DTensor) else ""  # optimisers want one kind in a group
            lr = config.lr * (lr_factors[slow] if slow else 1.0)
            weight_decay = config.weight_decay if decays else 0.0
            groups.setdefault(group, {"name": group, "params": [], "weight_decay": weight_decay, "lr": lr})
            groups[group]["params"].append((name, parameter))
    return [groups[name] for name in sorted(groups)]
