"""The largest logit."""

from torch import Tensor

from lightning_modules.open_world.score import Comparison, Score


class MaxLogit(Score):
    """max logit (Hendrycks et al. 2022, section 3), without the model's scale, which changes no order: the largest
    cosine, or minus the smallest distance."""

    def __call__(self, seen: Comparison) -> Tensor:
        return seen.similarities.amax(1)
