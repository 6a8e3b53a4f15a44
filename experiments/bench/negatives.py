"""NegLabel and AdaNeg as they are usually written: with every similarity at once, and proxies by broadcasting."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

SURE_INSIDE, SURE_OUTSIDE = 0.75, 0.25  # AdaNeg's defaults


def grouped_softmax(classes: Tensor, negatives: Tensor, groups: int, temperature: float) -> Tensor:
    """NegLabel's score (B,) of cosines (B, K) and (B, N), one softmax a group; N a multiple of the groups."""
    hands = negatives.view(len(negatives), -1, groups)
    shares = []
    for group in range(groups):
        cosines = torch.cat([classes, hands[:, :, group]], dim=1)
        shares.append((cosines / temperature).softmax(dim=1)[:, : classes.shape[1]].sum(dim=1))
    return torch.stack(shares, dim=1).mean(dim=1)


@dataclass(frozen=True, eq=False)
class BroadcastAdaNeg:
    """AdaNeg's score of one batch with an empty memory, whose adaptive logits multiply (b, 1, D) with (N, D).

    chunk  images at a time in that product, which would not fit otherwise.
    """

    classes: Tensor
    negatives: Tensor
    scale: float
    groups: int
    chunk: int

    def __call__(self, images: Tensor) -> Tensor:
        texts = torch.cat([self.classes, self.negatives])
        cosines = images @ texts.T
        static = self._share(cosines)
        proxies = F.normalize(self._sums(images, texts, cosines, static), dim=1)
        adaptive = torch.cat([(part[:, None] * proxies).sum(dim=2) for part in torch.split(images, self.chunk)])
        return self._share(adaptive) + 0.1 * static

    def _share(self, cosines: Tensor) -> Tensor:
        known = len(self.classes)
        return grouped_softmax(cosines[:, :known], cosines[:, known:], self.groups, 1 / self.scale)

    def _sums(self, images: Tensor, texts: Tensor, cosines: Tensor, static: Tensor) -> Tensor:
        """Texts (K + N, D), with the images added that are surely theirs. No memory gets full."""
        known = len(self.classes)
        inside, outside = static > SURE_INSIDE, static < SURE_OUTSIDE
        sums = texts.clone().index_add_(0, cosines[inside, :known].argmax(1), images[inside])
        return sums.index_add_(0, known + cosines[outside, known:].argmax(1), images[outside])
