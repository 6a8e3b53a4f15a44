"""Negative labels that learn from the test images."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from configs.schema import scores as schema
from lightning_modules.open_world.neglabel import share
from lightning_modules.open_world.reference import Reference
from lightning_modules.open_world.score import Comparison, Score, exact
from lightning_modules.open_world.sweep import Softmax, Sweep

BLOCK = 2**22  # similarities at a time
Memory = dict[int, list[tuple[float, Tensor]]]
"""By text, classes first: the images that are remembered, with the entropy of the softmax that put them there."""


class AdaNeg(Score):
    """NegLabel, and NegLabel again with task-adaptive proxies in the place of the texts (Zhang & Zhang
    2024): a proxy is the mean direction of a text and of the test images that are most surely its own.

    Of a batch, first the images of which the static score is sure are remembered, each by its nearest text among the
    classes or among the negatives; a full memory gives up the image of the highest entropy. Then all are scored:
    adaptive + weight x static, in the proportion of the authors' code, in [0, 1 + weight]. So a score depends on the
    batches before and on the batch itself; `reset` forgets. It is not differentiable.

    An untouched text is its own proxy: the adaptive logits are one more sweep, and no (B, N, D) is needed.

    Raises:
        ConfigError: a head that does not compare by cosines, or no such bank.
    """

    def __init__(self, setting: schema.AdaNeg, reference: Reference) -> None:
        reference.require_cosines("ada_neg")
        self.setting, self.reference = setting, reference
        self.bank = reference.bank(setting.bank)
        self.softmax = Softmax(1 / reference.scale, min(setting.groups, len(self.bank)))
        self.asks = {setting.bank: [self.softmax]}
        self._sweep = Sweep(reference.head, [self.softmax])
        self.reset()

    def reset(self) -> None:
        """As if no image had been seen."""
        self._memory: Memory = {}
        self._classes, self._negatives = self.reference.classes, self.bank.points

    @torch.no_grad()
    def __call__(self, seen: Comparison) -> Tensor:
        static = self._share(seen.similarities, seen.bank(self.setting.bank).logsumexp(self.softmax))
        self._remember(seen, static)
        similarities = exact(self.reference.head.similarities(seen.images, self._classes))
        adaptive = self._share(similarities, self._sweep(seen.images, self._negatives).logsumexp(self.softmax))
        return adaptive + self.setting.weight * static

    def _share(self, similarities: Tensor, groups: Tensor) -> Tensor:
        return share((similarities / self.softmax.temperature).logsumexp(1), groups)

    def _remember(self, seen: Comparison, static: Tensor) -> None:
        threshold, gap = self.setting.threshold, self.setting.gap
        inside = (static > threshold + gap * (1 - threshold)).nonzero().squeeze(1)
        outside = (static < threshold - gap * threshold).nonzero().squeeze(1)
        touched = self._keep(seen.images[inside], self.reference.classes, 0)
        touched |= self._keep(seen.images[outside], self.bank.points, len(self.reference.classes))
        self._move(touched)

    def _keep(self, images: Tensor, points: Tensor, offset: int) -> dict[int, None]:
        """Remembers images (S, D), each by the nearest of the points (N, D), whose texts are numbered from `offset`."""
        touched: dict[int, None] = {}
        for rows in torch.split(images, max(BLOCK // len(points), 1)):
            logs = (self.reference.scale * self.reference.head.similarities(rows, points)).log_softmax(1)
            entropies = -(logs.exp() * logs).sum(1)
            for image, place, entropy in zip(rows, logs.argmax(1).tolist(), entropies.tolist(), strict=True):
                held = self._memory.setdefault(offset + place, [])
                held.append((entropy, image.clone()))
                if len(held) == self.setting.length:  # one place is the text's own
                    held.pop(max(range(len(held)), key=lambda each: (held[each][0], each)))
                touched[offset + place] = None
        return touched

    def _move(self, touched: Mapping[int, None]) -> None:
        """Puts the proxies of these texts where their memories say."""
        classes = len(self.reference.classes)
        if self._negatives is self.bank.points and touched:
            self._classes, self._negatives = self._classes.clone(), self._negatives.clone()
        for text in touched:
            own, moved, place = (
                (self.reference.classes, self._classes, text)
                if text < classes
                else (self.bank.points, self._negatives, text - classes)
            )
            moved[place] = F.normalize(own[place] + sum(image for _, image in self._memory[text]), dim=0)
