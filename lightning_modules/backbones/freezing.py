"""Weights that stay as they are, without the slow path that frozen weights can take."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor, nn

from lightning_modules.backbones.backbone import Backbone, embed
from lightning_modules.backbones.tokens import embed_tokens

Module = TypeVar("Module", bound=nn.Module)


def freeze(module: Module) -> Module:
    """Stops the gradient of every weight of a module for evaluation, and returns it.

    All but attention's packed in-projection: where a weight doesn't require a gradient and its input isn't contiguous,
    ATen's matmul runs a bmm with a copy of the weight per image instead of one mm over (B * L, D) (`should_fold` in
    aten/src/ATen/native/LinearAlgebra.cpp), and batch-first attention transposes its input. ViT-B/32, bf16 on a CPU,
    images/s, forward | forward + input gradient: all weights requiring a gradient 20.7 | 7.1, all frozen 5.1 | 2.4, all
    frozen but the in-projection 29.4 | 7.6.

    Batch normalisation no longer keeps its inputs, see `FixedBatchNorm2d`.

    What remains makes this wrong for modules that an optimiser or DistributedDataParallel sees; see `frozen`,
    `reference_copy` and `freeze_text`.
    """
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(name.rpartition(".")[2] == "in_proj_weight")
    for layer in module.modules():
        if type(layer) is nn.BatchNorm2d and layer.affine and layer.track_running_stats:
            layer.__class__ = FixedBatchNorm2d
    return module


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """`freeze` for as long as the context lasts, also after an error."""
    weights = [(parameter, parameter.requires_grad) for parameter in module.parameters()]
    layers = [(layer, type(layer)) for layer in module.modules()]
    freeze(module)
    try:
        yield
    finally:
        for parameter, trained in weights:
            parameter.requires_grad_(trained)
        for layer, kind in layers:
            layer.__class__ = kind


class FixedBatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation in eval mode, as the affine map of its input that it is.

    torch's own keeps the input for the gradients of its weights, also where nobody asks for them. With it, a
    convolution, its normalisation and a ReLU keep two feature maps for the backward pass, and without it one.
    """

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W); in training mode, or in another precision than its own, as torch."""
        mean, variance = self.running_mean, self.running_var
        if self.training or mean is None or variance is None or input.dtype != self.weight.dtype:
            return super().forward(input)
        factor = self.weight * (variance + self.eps).rsqrt()
        shift = self.bias - mean * factor
        return torch.addcmul(shift[:, None, None], input, factor[:, None, None])  # one pass, and input is not kept


def freeze_text(backbone: Backbone) -> None:
    """Leaves the image tower alone to be trained; safe under DistributedDataParallel, which then expects nothing else.

    The text tower runs once a run, so that the slow path of `freeze`'s note costs it nothing.
    """
    backbone.requires_grad_(False)
    backbone.visual.requires_grad_(True)


class Reference:
    """The embeddings of an image tower as it was when this was made.

    No nn.Module: a LightningModule that holds it doesn't register its weights, so that they are neither trained, nor
    synchronised, nor saved. They follow the pixels to their device.
    """

    def __init__(self, backbone: Backbone) -> None:
        self._normalise = backbone.normalise
        self._visual = freeze(copy.deepcopy(backbone.visual)).eval()

    @torch.no_grad()
    def __call__(self, pixels: Tensor) -> Tensor:
        """Embeddings (B, D), without a gradient, of pixels (B, 3, H, W) in [0, 1]."""
        return embed(self._beside(pixels), self._normalise(pixels))

    @torch.no_grad()
    def tokens(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """The same, and tokens (B, L, D); see `embed_tokens`."""
        return embed_tokens(self._beside(pixels), self._normalise(pixels))

    def _beside(self, pixels: Tensor) -> nn.Module:
        if next(self._visual.parameters()).device != pixels.device:
            self._visual.to(pixels.device)
        return self._visual


def reference_copy(backbone: Backbone) -> Reference:
    """A frozen copy of a backbone's image tower. Make it before the state of an interrupted run is restored."""
    return Reference(backbone)


@contextmanager
def eval_mode(module: nn.Module) -> Iterator[None]:
    """Puts a module in eval mode, and each of its parts back into its own mode afterwards, also after an error."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training
