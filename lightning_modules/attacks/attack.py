"""What an attack is given and what it returns."""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from configs.errors import ConfigError

ModelFn = Callable[[Tensor], Tensor]
"""Pixels float32 (B, C, H, W) in [0, 1] -> outputs (B, K), logits or embeddings, of any float type. It must be in
evaluation mode where the model's layers depend on the batch, see `check_mode`."""

LossFn = Callable[[Tensor, Tensor], Tensor]
"""(outputs (B, K), target (B, ...)) -> float32 (B,), one value per sample, which the adversary raises."""

FallenFn = Callable[[Tensor, Tensor], Tensor]
"""(outputs (B, K), target (B, ...)) -> bool (B,), True where the adversary has reached its goal."""


AskFn = Callable[..., tuple[Tensor, Tensor, Tensor | None]]
"""`ask`, or what stands in for it: how a gradient is had."""


class Adversarial(NamedTuple):
    """An attack's result, per sample.

    pixels         float32 (B, C, H, W): within the budget to rounding, in [0, 1].
    zero_gradient  float32 (B,): share of coordinates whose gradient at the starting point is exactly 0. Near 1 the
                   model hides its gradients (or the loss has none there), and the attack's result says little.
    fallen         bool (B,): `fallen(outputs, target)` at `pixels`; all False where no such function was given.
    """

    pixels: Tensor
    zero_gradient: Tensor
    fallen: Tensor


class Attack(Protocol):
    """Raises a loss within a norm ball around each image.

    The state is float32 whatever the model runs in. Only the gradient of the pixels is computed: parameters keep their
    `.grad` and `requires_grad`, modules their train/eval mode, global generators their state. The result for a sample
    depends on its pixels, target and seed, not on the batch.

    Args:
        model_fn: see `ModelFn`.
        pixels: float (B, C, H, W) in [0, 1].
        target: what `loss_fn` and `fallen` compare with: labels int64 (B,), or any tensor of B rows.
        loss_fn: see `LossFn`.
        seeds: int64 (B,), see `noise.derive`.
        fallen: see `FallenFn`. With it the attack may stop working on a sample once it has fallen, which is what robust
            accuracy needs; without it every sample gets the whole budget, which is what training needs.

    Raises:
        ConfigError: the model is in training mode, see `check_mode`; a targeted attack has no class to aim at.
    """

    def __call__(
        self,
        model_fn: ModelFn,
        pixels: Tensor,
        target: Tensor,
        loss_fn: LossFn,
        seeds: Tensor,
        fallen: FallenFn | None = None,
    ) -> Adversarial: ...


def check_mode(model_fn: ModelFn) -> None:
    """Looks at the layers of a module, or of the module whose method it is; into other functions nobody can look.

    A module may be in training mode as long as no layer's answer follows from that.

    Raises:
        ConfigError: batch normalisation or dropout is in training mode.
    """
    model = getattr(model_fn, "__self__", model_fn)
    for name, layer in model.named_modules() if isinstance(model, nn.Module) else ():
        if layer.training and _depends_on_mode(layer):
            raise ConfigError(
                f"the model's layer '{name}' ({type(layer).__name__}) is in training mode, so that its answers depend "
                "on the batch or on chance; call model.eval() before the attack"
            )


def _depends_on_mode(layer: nn.Module) -> bool:
    drops = isinstance(layer, _DropoutNd) and layer.p > 0
    forgets = isinstance(layer, nn.MultiheadAttention) and layer.dropout > 0
    return drops or forgets or isinstance(layer, _BatchNorm)


def misclassified(logits: Tensor, labels: Tensor) -> Tensor:
    """bool (B,): the best logit is not the label's, or the logits (B, K) are not all numbers."""
    return (logits.argmax(1) != labels) | logits.isnan().any(1)


def zero_share(gradient: Tensor) -> Tensor:
    """Share of the coordinates that are exactly 0, float32 (B,), of a gradient (B, C, H, W)."""
    return (gradient == 0).flatten(1).sum(1) / gradient.shape[1:].numel()


def input_gradient(model_fn: ModelFn, pixels: Tensor, target: Tensor, loss_fn: LossFn) -> tuple[Tensor, Tensor, Tensor]:
    """One forward and one backward to the pixels.

    Returns:
        outputs (B, K) and losses (B,), detached, and the gradient of each sample's loss, float32 (B, C, H, W), with
        0 where it is not a number.
    """
    outputs, losses, gradient = ask(model_fn, pixels, lambda outputs: loss_fn(outputs, target))
    assert gradient is not None
    return outputs, losses, gradient


def ask(
    model_fn: ModelFn, pixels: Tensor, loss: Callable[[Tensor], Tensor], gradient: bool = True
) -> tuple[Tensor, Tensor, Tensor | None]:
    """As `input_gradient`, with a loss of the outputs alone, (B,) or (B, L); without `gradient` no graph is built.

    Returns:
        outputs (B, K); losses (B,) or (B, L); gradients (B, C, H, W) or, at one backward each, (B, L, C, H, W).
    """
    if not gradient:
        outputs = model_fn(pixels)
        return outputs, loss(outputs), None
    pixels = pixels.detach().requires_grad_()
    with torch.enable_grad():
        outputs = model_fn(pixels)
        losses = loss(outputs)
        columns = losses.sum(0).reshape(-1)
        found = [
            torch.autograd.grad(column, pixels, retain_graph=place < len(columns))[0]
            for place, column in enumerate(columns, start=1)
        ]
    gradients = found[0] if losses.ndim == 1 else torch.stack(found, dim=1)
    return outputs.detach(), losses.detach(), gradients.nan_to_num_(nan=0.0)
