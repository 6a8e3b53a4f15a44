"""The lower tail of in-distribution scores, class by class, as a Weibull distribution of what they fall short of it."""

from typing import NamedTuple

import torch
from torch import Tensor

from configs.errors import DataError


class Weibull(NamedTuple):
    """P(X > x) = exp(-(x / scale)^shape), x >= 0."""

    shape: float
    scale: float


class Tails(NamedTuple):
    """How likely in-distribution scores s of K classes are to be low. All (K,): below `start`, P(S < s) =
    mass * exp(-((start - s) / scale)^shape); `threshold` is where that is the share of images to be turned away; and
    `pooled` says which classes had too few scores, and have the tail of all classes together."""

    start: Tensor
    scale: Tensor
    shape: Tensor
    mass: Tensor
    threshold: Tensor
    pooled: Tensor

    @staticmethod
    def unfitted(classes: int) -> "Tails":
        """Turns nothing away."""
        one = torch.ones(classes)
        return Tails(one * 0, one, one, one, one * -torch.inf, one.bool())


def fit(values: Tensor) -> Weibull:
    """Maximum likelihood: shape solves sum x^c log x / sum x^c - 1/c = mean log x, whose left side rises with c;
    scale = mean(x^c)^(1/c).

    Args:
        values: > 0, finite, at least two of them different.

    Raises:
        DataError: they are not.
    """
    if len(values) < 2 or not bool(((values > 0) & values.isfinite()).all()) or bool((values == values[0]).all()):
        raise DataError(
            f"a Weibull distribution needs at least two different positive values, got {len(values)} that are not; "
            "calibrate on more images, or raise vaccination.tail"
        )
    logs = values.double().log()
    logs = logs - logs.max()  # the shape does not depend on the unit, and powers then stay within (0, 1]
    low, high = 1e-6, 1.0
    while _slope(logs, high) < 0:
        low, high = high, 2 * high
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if _slope(logs, middle) < 0 else (low, middle)
    shape = (low + high) / 2
    largest = values.double().max()
    return Weibull(shape, float(largest * (shape * logs).exp().mean() ** (1 / shape)))


def fit_tails(
    scores: Tensor, classes: Tensor, class_count: int, *, tail: float, rejected: float, tail_samples: int
) -> Tails:
    """Peaks below a threshold (Coles 2001, chapter 4, with the Weibull distribution that open-set recognition fits to
    tails, Bendale & Boult 2016): what the lowest scores of each class fall short of the lowest that isn't among them.

    Args:
        scores: of in-distribution samples, (M,).
        classes: predicted ones, int64 (M,): a threshold is applied by the predicted class too.
        class_count: K.
        tail: share of the scores that are the tail.
        rejected: share of in-distribution samples that the thresholds turn away; below `tail`.
        tail_samples: distinct scores that a class's tail must have; else the class takes the tail of all classes.

    Raises:
        DataError: even all classes together have no two different scores in the tail; a score is not finite.
    """
    if not bool(scores.isfinite().all()):
        raise DataError("a score of the calibration images is not finite; check the model and its prototypes")
    scores = scores.double().cpu()
    shared = _tail(scores, tail, rejected, 2)
    if shared is None:
        raise DataError(
            f"the lowest {tail:.0%} of {len(scores)} calibration scores have no two different values, so that there is "
            "no tail to fit; calibrate on more images, or raise vaccination.tail"
        )
    own = [_tail(scores[classes.cpu() == number], tail, rejected, tail_samples) for number in range(class_count)]
    rows = torch.tensor([found or shared for found in own], dtype=torch.float64).float()
    start, scale, shape, mass, threshold = rows.unbind(dim=1)
    return Tails(start, scale, shape, mass, threshold, torch.tensor([found is None for found in own]))


def log_tail(scores: Tensor, start: Tensor, scale: Tensor, shape: Tensor) -> Tensor:
    """log P(S < s | S < start) where s is below `start`, and (s - start) / scale above, where that probability is 1: a
    line of the same unit keeps samples apart (ours). Rises with s, and is differentiable almost everywhere."""
    standard = (scores - start) / scale
    # Away from 0, where the gradient of a power below 1 is infinite, also of the branch that isn't taken.
    short = (-standard).clamp_min(1e-6)
    return torch.where(standard < -1e-6, -(short**shape), standard)


def _tail(scores: Tensor, tail: float, rejected: float, distinct: int) -> tuple[float, ...] | None:
    """(start, scale, shape, mass, threshold); None where there are too few distinct scores."""
    ordered = scores.sort().values
    place = round(tail * len(ordered))
    if place >= len(ordered):
        return None
    start = ordered[place]
    below = ordered[ordered < start]
    if int((below.diff() > 0).sum()) + 1 < max(distinct, 2):
        return None
    shape, scale = fit(start - below)
    mass = len(below) / len(ordered)
    reach = torch.tensor(mass / rejected, dtype=torch.float64).log().clamp_min(0) ** (1 / shape)
    return float(start), scale, shape, mass, float(start - scale * reach)


def _slope(logs: Tensor, shape: float) -> float:
    powers = (shape * logs).exp()
    return float((powers * logs).sum() / powers.sum() - 1 / shape - logs.mean())
