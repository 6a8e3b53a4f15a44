"""Maximum concept matching."""

from torch import Tensor

from lightning_modules.open_world.score import Comparison, Score, exact


class MCM(Score):
    """max softmax(cosines / temperature) over the in-distribution classes (Ming et al. 2022, eq. 2): in (0, 1]."""

    def __init__(self, temperature: float) -> None:
        self.temperature = temperature

    def __call__(self, seen: Comparison) -> Tensor:
        return mcm(seen.similarities, self.temperature)


def mcm(cosines: Tensor, temperature: float) -> Tensor:
    """The score (B,), see `exact`, of similarities (B, K): cosines of images and class texts without the model's logit
    scale, or minus the distances of a hyperbolic head."""
    return (exact(cosines) / temperature).softmax(dim=1).amax(dim=1)
