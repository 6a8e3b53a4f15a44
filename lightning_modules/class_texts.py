"""The text side of a fine-tuning: prompts of classes, on the way to the points that images are compared with."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from configs.schema.objective import TextAttack
from lightning_modules import ranks
from lightning_modules.attacks import noise
from lightning_modules.backbones import Backbone
from lightning_modules.backbones.freezing import eval_mode
from lightning_modules.backbones.text_tower import TextTower

Wordings = Sequence[Sequence[Sequence[str]]]
"""Blocks of classes; in a block every class has equally many prompts."""


class ClassTexts:
    """Points (N, D) of all classes, in the order of the blocks.

    Where nothing of the text side is trained they are computed once. Otherwise what never changes runs once over all
    prompts, and the points follow the weights from there on: from the embeddings, where the head alone is trained, or
    from the tower below its projection.

    Shapes: P prompts in all, W the tower's width, D embedding dimensions.
    """

    def __init__(self, backbone: Backbone, wordings: Wordings, trained: bool, head_trained: bool = False) -> None:
        """
        Args:
            backbone: on the device of the training.
            trained: whether the projection is trained, or texts are perturbed.
            head_trained: whether the head is.

        Raises:
            ConfigError: the text side is trained, and its tower has no projection to take apart.
        """
        self._embeddings: Tensor | None = None
        self._fixed: Tensor | None = None
        self._head = backbone.head
        self._shapes = [(len(block), len(block[0])) for block in wordings]
        classes = [texts for block in wordings for texts in block]
        prompts = [prompt for texts in classes for prompt in texts]
        if not trained:
            with torch.no_grad(), eval_mode(backbone):
                self._embeddings = backbone.embed_text(prompts)
                self._fixed = None if head_trained else self._points(self._embeddings)
            return
        self._tower = TextTower(backbone)
        owners = [place for place, texts in enumerate(classes) for _ in texts]
        self._owners = torch.tensor(owners, device=backbone.mean.device)
        self._tokens = backbone.tokenizer(prompts).to(backbone.mean.device)
        with torch.no_grad():
            self._pooled = torch.cat([self._tower.pooled(part) for part in torch.split(self._tokens, 512)])

    def __call__(self) -> Tensor:
        """Points of the classes as they are now, with a gradient where something is trained."""
        if self._fixed is not None:
            return self._fixed
        return self._follow(self._pooled) if self._embeddings is None else self._points(self._embeddings)

    def perturbed(
        self, loss_fn: Callable[[Tensor], Tensor], relevant: Tensor, attack: TextAttack, seeds: tuple[int, int]
    ) -> Tensor:
        """Points after one signed gradient step of size eps in the token embeddings of some prompts.

        Ranks share the prompts out: each runs the tower over its part, and the loss that is raised is the sum of all
        ranks' losses, so that all of them see the same texts. Every rank must call it.

        Args:
            loss_fn: points (N, D) -> the loss that the step raises, a scalar.
            relevant: bool (N,), the classes whose prompts come first; the same on every rank.
            seeds: of the draw among them.
        """
        chosen = self._choose(relevant, attack.prompts, seeds)
        mine = ranks.share(len(chosen)).to(chosen.device)
        tokens = self._tokens[chosen[mine]]
        shift = self._pooled.new_zeros(*tokens.shape, self._pooled.shape[1]).requires_grad_()
        with torch.enable_grad():
            own = self._tower.pooled(tokens, shift)
            pooled = self._replaced(chosen, own).requires_grad_()
            (slope,) = torch.autograd.grad(loss_fn(self._follow(pooled)), pooled)
            (gradient,) = torch.autograd.grad(own, shift, ranks.summed(slope[chosen])[mine])
        with torch.no_grad():
            own = self._tower.pooled(tokens, attack.eps * gradient.sign())
        return self._follow(self._replaced(chosen, own))

    def _choose(self, relevant: Tensor, count: int, seeds: tuple[int, int]) -> Tensor:
        """int64 (count,): places of prompts, at random among the relevant classes', and then among the others'."""
        drawn = noise.uniform(noise.derive(seeds[0], seeds[1], torch.zeros(1, dtype=torch.int64)), (len(self._tokens),))
        order = drawn.squeeze(0).to(relevant.device) + 2 * relevant[self._owners].float()
        return order.topk(min(count, len(self._tokens))).indices

    def _replaced(self, chosen: Tensor, own: Tensor) -> Tensor:
        """All prompts' features (P, W), those of the chosen as the ranks found them; without their gradient."""
        return self._pooled.index_copy(0, chosen, ranks.gathered(own.detach())[: len(chosen)])

    def _follow(self, pooled: Tensor) -> Tensor:
        return self._points(self._tower.project(pooled))

    def _points(self, prompts: Tensor) -> Tensor:
        """Points of the prompts' embeddings (P, D)."""
        blocks = torch.split(prompts, [classes * each for classes, each in self._shapes])
        return torch.cat(
            [self._head.texts(block.view(*shape, -1)) for block, shape in zip(blocks, self._shapes, strict=True)]
        )
