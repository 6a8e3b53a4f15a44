"""CLIP's own head."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True, eq=False)
class CosineHead:
    """scale * cosine of image and class text (Radford et al. 2021, section 3.1); see `Head`.

    scale  factor on the cosines, a number or a 0-dim tensor; never trained.
    """

    scale: Tensor | float

    def images(self, embeddings: Tensor) -> Tensor:
        """Unit vectors."""
        return F.normalize(embeddings.float(), dim=-1)

    def texts(self, prompts: Tensor) -> Tensor:
        """Unit vectors in the direction of the mean of the prompts' unit vectors (section 3.1.4)."""
        return F.normalize(F.normalize(prompts.float(), dim=-1).mean(dim=1), dim=-1)

    def similarities(self, image_points: Tensor, text_points: Tensor) -> Tensor:
        """Cosines."""
        with torch.autocast(image_points.device.type, enabled=False):
            return image_points.float() @ text_points.float().T

    def logits(self, image_points: Tensor, text_points: Tensor) -> Tensor:
        """Cosines, scaled."""
        scale = self.scale.detach().float() if isinstance(self.scale, Tensor) else self.scale
        return scale * self.similarities(image_points, text_points)
