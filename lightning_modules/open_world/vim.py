"""Virtual-logit matching."""

import torch
from torch import Tensor

from configs.errors import ConfigError
from lightning_modules.open_world.moments import BLOCK, second_moment
from lightning_modules.open_world.reference import Reference
from lightning_modules.open_world.score import Comparison, Score, exact


class ViM(Score):
    """logsumexp(logits) - alpha ||residual|| (Wang et al. 2022): the residual is what of a unit embedding is outside of
    the principal space of the training embeddings, and alpha makes its mean length that of their largest logits.
    CLIP's logits have no bias, so that the paper's new origin is the old one.

    Raises:
        ConfigError: a head that does not compare by cosines, no training embeddings, or a principal space of all
            dimensions.
    """

    def __init__(self, dimension: int | None, reference: Reference) -> None:
        reference.require_cosines("vim")
        features, _ = reference.training("vim")
        width = features.shape[1]
        principal = width // 2 if dimension is None else dimension
        if principal >= width:
            raise ConfigError(f"the score vim has dimension {principal} of {width}, which leaves no residual; lower it")
        self.scale = reference.scale
        self.residual = torch.linalg.eigh(second_moment(features))[1][:, : width - principal]  # eigenvalues ascend
        blocks = [exact(block) for block in torch.split(features, BLOCK)]
        logits = sum((self.scale * block @ exact(reference.classes).T).amax(1).sum() for block in blocks)
        self.alpha = logits / sum((block @ self.residual).norm(dim=1).sum() for block in blocks)

    def __call__(self, seen: Comparison) -> Tensor:
        energy = (self.scale * seen.similarities).logsumexp(1)
        return energy - self.alpha * (seen.features @ self.residual).norm(dim=1)
