"""How far one classification is from another."""

import torch.nn.functional as F
from torch import Tensor


def divergence(logits: Tensor, target: Tensor) -> Tensor:
    """KL(softmax(target) || softmax(logits)) per image, float32 (B,), of logits (B, N).

    The gradient reaches both; detach what is to stay.
    """
    answers, wanted = logits.float().log_softmax(1), target.float().log_softmax(1)
    return F.kl_div(answers, wanted, reduction="none", log_target=True).sum(1)
