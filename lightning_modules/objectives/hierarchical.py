"""Robustness at every level of class trees, in hyperbolic space."""

import torch
import torch.nn.functional as F
from torch import Tensor

from configs.errors import ConfigError
from configs.schema.objective import Hierarchical as Config
from lightning_modules.geometry import PoincareBall
from lightning_modules.heads import Head, HyperbolicHead
from lightning_modules.hierarchy import Forest
from lightning_modules.objectives.centres import Centres, centres, gathered
from lightning_modules.objectives.level import Term, edges, terms
from lightning_modules.objectives.objective import Needs, Parts, Views, total


class Hierarchical:
    """Cross-entropy of adversarial images at all levels of all trees, with a neighbourhood and a norm order (Dong et
    al. 2026, eq. 9 to 14). Texts are the forest's nodes, N of them.

    What is chosen where the paper is silent: every hinge and margin is a field of the configuration; trees are summed;
    an image's loss at a level is that of the midpoint of its class there; `vic` holds for leaves.

    Raises:
        ConfigError: no tree has a level with anything to tell apart; the adversary aims at a level of weight 0.
    """

    def __init__(self, config: Config, head: Head, forest: Forest, device: torch.device) -> None:
        if len(forest.levels) < 2:
            raise ConfigError(
                "module.objective.kind=hierarchical needs a class tree with a level of two or more classes above the "
                "leaves, and there is none; name one in hierarchy.trees, or choose another objective"
            )
        weights = None if config.level_weights is None else tuple(config.level_weights)
        self.config, self.head = config, head
        self.terms = terms(forest, weights, config.negatives, device)
        self._check_levels()
        self.sizes = [[len(names) for names in tree.levels] for tree in forest.trees]
        self.parents = [[torch.tensor(each, device=device) for each in tree.parents] for tree in forest.trees]
        self.edges = torch.tensor(edges(forest), dtype=torch.int64, device=device).reshape(-1, 2)

    def _check_levels(self) -> None:
        """What the adversary aims at must weigh something."""
        weighed = {term.number for term in self.terms}
        aims = {"leaf": {0}, "universal": weighed, "per_level": set(range(max(weighed, default=0) + 1))}
        if not weighed or aims[self.config.adversary] - weighed:
            raise ConfigError(
                f"module.objective.level_weights={self.config.level_weights} leave the adversary "
                f"{self.config.adversary} without a level to attack; give the levels that it aims at weights above 0"
            )

    @property
    def needs(self) -> Needs:
        levels = 1 + max(term.number for term in self.terms)
        adversaries = levels if self.config.adversary == "per_level" else 1
        return Needs(clean=self.config.clean_weight > 0, adversaries=adversaries)

    def target(self, labels: Tensor, answers: Tensor | None, reference: Tensor | None, texts: Tensor) -> Tensor:
        return labels

    def inner(self, embeddings: Tensor, target: Tensor, texts: Tensor) -> Tensor:
        """The weighted cross-entropies (eq. 10), of images that are attacked together: midpoints join their fates.
        Every rank must call it as often as the others."""
        images = self.head.images(embeddings)
        if self.needs.adversaries > 1:
            return torch.cat(self._apart(images, target, texts))
        return self._levels(images, target, texts, only=0 if self.config.adversary == "leaf" else None)

    def outer(self, views: Views, labels: Tensor, texts: Tensor) -> tuple[Tensor, Parts]:
        images, config = self.head.images(views.adversarial.pooled), self.config
        ordered = self.head if config.gap_weight and isinstance(self.head, HyperbolicHead) else None
        found = self._centres(ordered.ball, images, labels) if ordered and config.gap_images == "parents" else None
        if self.needs.adversaries > 1:
            levels = torch.stack(self._apart(images, labels, texts)).sum(0)
        else:
            levels = self._levels(images, labels, texts, found)
        parts = {"levels": levels.mean()}
        if views.clean is not None:
            clean = self.head.images(views.clean.pooled)
            parts["clean"] = config.clean_weight * self._levels(clean, labels[: len(clean)], texts).mean()
        if config.vic_weight:
            parts["vic"] = config.vic_weight * self._neighbourhood(images, labels, texts)
        if ordered:
            parts["gap_texts"] = config.gap_weight * self._text_order(ordered, texts)
            own = texts[labels]
            order = self._parent_order(ordered, found) if found else self._own_text_order(ordered, images, own)
            parts["gap_images"] = config.gap_weight * order
        return total(parts)

    def _apart(self, images: Tensor, labels: Tensor, texts: Tensor) -> list[Tensor]:
        """Of every adversary's images, float32 (B,) each, the terms of the level that it raises."""
        count = self.needs.adversaries
        batches = zip(images.chunk(count), labels.chunk(count), strict=True)
        return [self._levels(part, some, texts, only=level) for level, (part, some) in enumerate(batches)]

    def _levels(
        self,
        images: Tensor,
        labels: Tensor,
        texts: Tensor,
        found: list[list[Centres]] | None = None,
        only: int | None = None,
    ) -> Tensor:
        """The weighted sum over levels, float32 (B,).

        Args:
            found: the centres of these images, where they are known.
            only: the one level whose terms are meant.
        """
        chosen = [term for term in self.terms if only is None or term.number == only]
        if self.config.parents == "image" or not any(term.number for term in chosen):
            found = []
        elif found is None and isinstance(self.head, HyperbolicHead):
            found = self._centres(self.head.ball, images, labels)
        losses = [term.weight * term.loss(self._logits(term, images, labels, found, texts), labels) for term in chosen]
        return torch.stack(losses).sum(0)

    def _logits(
        self, term: Term, images: Tensor, labels: Tensor, found: list[list[Centres]] | None, texts: Tensor
    ) -> Tensor:
        points = images
        if term.number and found:
            points = found[term.tree][term.number].points[term.ancestors[labels]]
        return self.head.logits(points, texts[term.texts])

    def _centres(self, ball: PoincareBall, images: Tensor, labels: Tensor) -> list[list[Centres]]:
        """Per tree and level."""
        points, everyone = gathered(images, labels)
        return [
            centres(ball, points, everyone, parents, sizes)
            for parents, sizes in zip(self.parents, self.sizes, strict=True)
        ]

    def _neighbourhood(self, images: Tensor, labels: Tensor, texts: Tensor) -> Tensor:
        """L_vic: how far images are from their class text, beyond the radius that they may keep."""
        own = texts[labels]
        if isinstance(self.head, HyperbolicHead):
            distances = self.head.ball.distance(images, own)
        else:
            distances = 1 - (images * own).sum(1)
        return F.relu(distances - self.config.vic_radius).mean()

    def _text_order(self, head: HyperbolicHead, texts: Tensor) -> Tensor:
        """L_gap of labels (eq. 11): a parent's norm is below its child's."""
        shares = head.shares(texts)
        return self._order(shares[self.edges[:, 1]], shares[self.edges[:, 0]]).mean()

    def _own_text_order(self, head: HyperbolicHead, images: Tensor, own: Tensor) -> Tensor:
        """L_gap within classes (eq. 13), read as: a text's norm is below that of its class's images."""
        return self._order(head.shares(own), head.shares(images)).mean()

    def _parent_order(self, head: HyperbolicHead, found: list[list[Centres]]) -> Tensor:
        """L_gap within classes (eq. 13), read as: a parent's midpoint lies below its children's."""
        violations, counts = [], []
        for tree, parents in zip(found, self.parents, strict=True):
            for below, above, parent in zip(tree[:-1], tree[1:], parents, strict=True):
                violated = self._order(head.shares(above.points)[parent], head.shares(below.points))
                violations.append((violated * below.present).sum())
                counts.append(below.present.sum())
        return torch.stack(violations).sum() / torch.stack(counts).sum()

    def _order(self, upper: Tensor, lower: Tensor) -> Tensor:
        return F.relu(upper - lower + self.config.gap)
