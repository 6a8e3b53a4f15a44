"""What vaccination minimises: the pull of an image to its class, and the push away from antibodies."""

from collections.abc import Callable
from typing import TypedDict

import torch
import torch.nn.functional as F
from torch import Tensor

from configs.schema.vaccination import FeatureAttack
from lightning_modules.open_world.immunity import Immunity
from lightning_modules.open_world.push import Pairing, push


class Parts(TypedDict):
    """`loss` = `pull` + weight * `push`, each a mean over the batch."""

    loss: Tensor
    pull: Tensor
    push: Tensor


def vaccination_loss(
    immunity: Immunity, embeddings: Tensor, labels: Tensor, *, margin: float, weight: float, pairing: Pairing
) -> Parts:
    """Cross-entropy of the class posterior under von Mises-Fisher distributions, and the hinged squared push (the
    paper's L_pull + lambda L_push; eta ||theta||^2 is the optimiser's decoupled weight decay).

    Args:
        embeddings: (B, D), of any length.
        labels: int64 (B,).
    """
    points = immunity.adapt(embeddings)
    pull = F.cross_entropy(immunity.logits(points), labels)
    if not weight:
        return {"loss": pull, "pull": pull, "push": torch.zeros_like(pull)}
    away = push(points, immunity.antibodies, immunity.owners, labels, margin, pairing).mean()
    return {"loss": pull + weight * away, "pull": pull, "push": away}


def worst_embeddings(loss_fn: Callable[[Tensor], Tensor], embeddings: Tensor, config: FeatureAttack) -> Tensor:
    """Embeddings within an L2 ball around unit embeddings (B, D) that raise a loss: normalised gradient ascent (Madry
    et al. 2018, section 2.1, with L2 steps) from the centre, in steps of 2 eps / steps, or one of eps. Samples don't
    see each other. Without a gradient."""
    start = F.normalize(embeddings.float(), dim=-1)
    step = config.eps if config.steps == 1 else 2 * config.eps / config.steps
    shift = torch.zeros_like(start)
    for _ in range(config.steps):
        shift.requires_grad_()
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad(loss_fn(start + shift), shift)
        shift = shift.detach() + step * F.normalize(gradient, dim=1, eps=1e-30)
        shift = shift * (config.eps / shift.norm(dim=1, keepdim=True).clamp_min(1e-30)).clamp_max(1)
    return start + shift
