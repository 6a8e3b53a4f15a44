"""What a robust fine-tuning objective offers to the training step and to the adversary."""

from typing import Protocol

from torch import Tensor

Parts = dict[str, Tensor]


class Objective(Protocol):
    """A loss on image embeddings, with the inner loss that its adversary raises.

    needs_reference  whether `target` wants the frozen original's embeddings of the clean pixels.
    needs_clean      whether `outer` wants embeddings of the clean pixels, with their gradient.
    """

    @property
    def needs_reference(self) -> bool: ...

    @property
    def needs_clean(self) -> bool: ...

    def target(self, labels: Tensor, reference: Tensor | None) -> Tensor:
        """What the losses compare with, (B, ...), from labels int64 (B,) and reference embeddings (B, D)."""
        ...

    def inner(self, embeddings: Tensor, target: Tensor) -> Tensor:
        """What the adversary raises: un-normalised embeddings (B, D) -> float32 (B,)."""
        ...

    def outer(self, adversarial: Tensor, clean: Tensor | None, target: Tensor) -> tuple[Tensor, Parts]:
        """What training lowers: embeddings (B, D) -> a scalar with gradient, and its detached parts by name."""
        ...


def combine(adversarial: Tensor, clean: Tensor | None, clean_weight: float) -> tuple[Tensor, Parts]:
    """adversarial + clean_weight * clean, of per-sample losses (B,), averaged over the batch."""
    loss = adversarial.mean()
    parts = {"adversarial": loss.detach()}
    if clean is not None:
        parts["clean"] = clean.mean().detach()
        loss = loss + clean_weight * clean.mean()
    return loss, parts
