"""What makes logits of embeddings."""

from typing import Protocol

from torch import Tensor


class Head(Protocol):
    """Places images and class texts in one space, and compares them. All in float32, under autocast too.

    Shapes: B images, N classes, T prompts per class, D dimensions. Embeddings come as the backbone gives them, not
    normalised: their length may carry meaning.
    """

    @property
    def scale(self) -> Tensor | float:
        """Factor of the similarities in logits: 1 / temperature."""
        ...

    def images(self, embeddings: Tensor) -> Tensor:
        """Points float32 (B, D) of embeddings (B, D)."""
        ...

    def texts(self, prompts: Tensor) -> Tensor:
        """Points float32 (N, D), one per class, of its prompts' embeddings (N, T, D)."""
        ...

    def similarities(self, image_points: Tensor, text_points: Tensor) -> Tensor:
        """float32 (B, N): larger = more alike."""
        ...

    def logits(self, image_points: Tensor, text_points: Tensor) -> Tensor:
        """Similarities, scaled."""
        ...


def classify(head: Head, embeddings: Tensor, text_points: Tensor) -> Tensor:
    """Logits float32 (B, N) of image embeddings (B, D)."""
    return head.logits(head.images(embeddings), text_points)
