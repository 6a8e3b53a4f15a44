"""How far apart a classifier's logits can get at a given depth (Dong et al. 2026, arXiv 2604.18867, theorem 1)."""

from torch import Tensor

from lightning_modules.geometry.ball import PoincareBall


def euclidean_margin(norm: Tensor, scale: float) -> Tensor:
    """2 scale norm^2: the largest difference of two logits scale * <image, text>, all embeddings of norm `norm` (...).

    The texts are then opposite, one of them in the direction of the image.
    """
    return 2 * scale * norm.square()


def hyperbolic_margin(norm: Tensor, scale: float, ball: PoincareBall) -> Tensor:
    """(4 scale / sqrt r) artanh(sqrt r norm): the same of logits -scale * distance, all points of norm `norm` (...).

    It is the distance of a point to its opposite, scaled. It diverges at the rim, but only with the logarithm of what
    is left of the radius: halving that adds (2 scale / sqrt r) log 2. And it bounds what logits can express at that
    depth; it is no certificate of robustness, as it says nothing of how far an adversary moves a point.

    Args:
        norm: Euclidean, below the ball's radius (infinite at it).
    """
    return 4 * scale * ball.radius * (norm / ball.radius).atanh()
