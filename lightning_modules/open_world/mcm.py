"""Maximum concept matching."""

import torch
from torch import Tensor


def mcm(cosines: Tensor, temperature: float) -> Tensor:
    """max softmax(cosines / temperature) over the in-distribution classes (Ming et al. 2022, eq. 2): higher = more ID.

    Args:
        cosines: float (B, N), of image and class texts, without the model's logit scale; a hyperbolic head has minus
            its distances in their place.
        temperature: tau. 1 is the paper's; 1 / logit_scale gives the model's own class probabilities.

    Returns:
        (B,) in (0, 1], in float64 where the device has it: float32 rounds confident samples to 1, and ties them.
    """
    cosines = cosines if cosines.device.type == "mps" else cosines.to(torch.float64)
    return (cosines / temperature).softmax(dim=1).amax(dim=1)
