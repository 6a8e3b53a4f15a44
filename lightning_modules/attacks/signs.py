"""Single signs that attacks on a model fail for other reasons than robustness, and from where on each raises doubt."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

TOLERATED = 0.002
"""Share of samples for which a sign is forgiven: AutoAttack's flag for Square is raised above 0.2 points."""

SIGNIFICANCE = 0.01
"""How improbable a count must be for a model within tolerance. One sample of 64 is 1.6 points already, so 0.2 points
cannot be read off a small subset: with n = 64 two samples raise doubt (p = 0.007) and one does not (p = 0.12). For
n = 10,000 it takes 32."""

CHANGE = 1e-4
"""Largest distance between two answers, each of length 1, that is put down to rounding; as in AutoAttack's check."""

DISTRIBUTION = 1e-5
"""How far outputs in float32 may be from non-negative with sum 1 and count as probabilities; as in AutoAttack's check.
Coarser types get 8 units in the last place."""

DEAF = 0.5
"""Share of pixels without gradient. A crop or a stride hides some pixels from a network, not most of them."""


@dataclass(frozen=True)
class Check:
    """One sign: its value, and the reason against the model's numbers in plain words, empty where it does not show."""

    name: str
    value: float
    reason: str = ""


def randomised(outputs: Tensor, again: Tensor) -> Check:
    """From two answers (B, K) to the same pixels."""
    one, other = (F.normalize(each.float().nan_to_num(), dim=1) for each in (outputs, again))
    change = float((one - other).norm(dim=1).max())
    reason = "two answers to the same pictures differ, so an attack that does not average over them relies on luck"
    return Check("randomised", change, reason if change > CHANGE else "")


def softmax(outputs: Tensor) -> Check:
    """From outputs (B, K). Doubtful where all are distributions: a single one can be by chance."""
    slack = DISTRIBUTION if outputs.dtype.itemsize >= 4 else 8 * torch.finfo(outputs.dtype).eps
    values = outputs.float()
    alike = (values.amin(1) >= -slack) & ((values.sum(1) - 1).abs() <= slack)
    reason = "the outputs are probabilities, on which losses made for logits are flat"
    return Check("softmax", float(alike.float().mean()), reason if bool(alike.all()) else "")


def zero_gradient(shares: Tensor) -> Check:
    """From the share of coordinates (B,) whose gradient is exactly 0, per sample."""
    share = float(shares.mean())
    return Check("zero_gradient", share, f"{share:.0%} of the gradient is zero" if share > DEAF else "")


def gained(name: str, what: str, fallen: Tensor, otherwise: Tensor) -> Check:
    """From who falls, bool (B,), to an attack and `otherwise`: the net share, in doubt by an exact sign test."""
    more, less, n = int((otherwise & ~fallen).sum()), int((fallen & ~otherwise).sum()), len(fallen)
    reason = f"{what} fells {more} of {n} samples more and {less} less"
    return Check(name, (more - less) / n, reason if chance(more, more + less, 0.5) < SIGNIFICANCE else "")


def counted(name: str, count: int, n: int, what: str) -> Check:
    """From the number of samples that show the sign."""
    return Check(name, count / n, f"{count} of {n} samples {what}" if too_many(count, n) else "")


def too_many(count: int, n: int) -> bool:
    """Whether more than the tolerated share must show the sign, if `count` of n samples do."""
    return chance(count, n, TOLERATED) < SIGNIFICANCE


def chance(count: int, n: int, share: float) -> float:
    """Probability of `count` or more among n independent samples that each show a sign with probability `share`."""
    if count == 0:
        return 1.0
    for_one, for_none = math.log(share), math.log1p(-share)
    return math.fsum(math.exp(_ways(n, k) + k * for_one + (n - k) * for_none) for k in range(count, n + 1))


def _ways(n: int, k: int) -> float:
    """Logarithm of the binomial coefficient."""
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
