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
from lightning_modules.objectives.objective import Needs, Parts, Views


class Hierarchical:
    """Cross-entropy of adversarial images at all levels of all trees, with a neighbourhood and a norm order (Dong et
    al. 2026, eq. 9 to 14). Texts are the forest's nodes, N of them.

    What is chosen where the paper is silent: every hinge and margin is a field of the configuration; trees are summed;
    an image's loss at a level is that of the midpoint of its class there; `vic` holds for leaves.

    Raises:
        ConfigError: no tree has a level with anything to tell apart.
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
        self.sizes = [[len(names) for names in tree.levels] for tree in forest.trees]
        self.parents = [[torch.tensor(each, device=device) for each in tree.parents] for tree in forest.trees]
        self.edges = torch.tensor(edges(forest), dtype=torch.int64, device=device).reshape(-1, 2)

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
        return self._per_adversary(embeddings, target, texts, raised=True)

    def outer(self, views: Views, labels: Tensor, texts: Tensor) -> tuple[Tensor, Parts]:
        adversarial = self._per_adversary(views.adversarial.pooled, labels, texts).mean()
        parts = {"levels": adversarial}
        if views.clean is not None:
            parts["clean"] = self.config.clean_weight * self._levels(views.clean.pooled, labels, texts).mean()
        images = self.head.images(views.adversarial.pooled)
        if self.config.vic_weight:
            parts["vic"] = self.config.vic_weight * self._neighbourhood(images, labels, texts)
        if self.config.gap_weight and isinstance(self.head, HyperbolicHead):
            parts["gap_texts"] = self.config.gap_weight * self._text_order(self.head, texts)
            parts["gap_images"] = self.config.gap_weight * self._image_order(self.head, images, labels, texts)
        return torch.stack(list(parts.values())).sum(), {name: part.detach() for name, part in parts.items()}

    def _per_adversary(self, embeddings: Tensor, labels: Tensor, texts: Tensor, raised: bool = False) -> Tensor:
        """Each adversary's images under the terms that it raises; one adversary has them all."""
        count = self.needs.adversaries
        if count > 1:
            found = [
                self._levels(part, some, texts, level)
                for level, (part, some) in enumerate(zip(embeddings.chunk(count), labels.chunk(count), strict=True))
            ]
            return torch.cat(found) * (1 if raised else count)  # a mean over the copies is a sum over the levels
        return self._levels(embeddings, labels, texts, 0 if raised and self.config.adversary == "leaf" else None)

    def _levels(self, embeddings: Tensor, labels: Tensor, texts: Tensor, only: int | None = None) -> Tensor:
        """The weighted sum over levels, float32 (B,); `only` keeps the terms of one level."""
        images = self.head.images(embeddings)
        chosen = [term for term in self.terms if only is None or term.number == only]
        found: list[list[Centres]] = []
        if self.config.parents == "midpoint" and isinstance(self.head, HyperbolicHead):
            found = self._centres(self.head.ball, images, labels)
        losses = [term.weight * term.loss(self._logits(term, images, labels, found, texts), labels) for term in chosen]
        return torch.stack(losses).sum(0)

    def _logits(self, term: Term, images: Tensor, labels: Tensor, found: list[list[Centres]], texts: Tensor) -> Tensor:
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
        norms = head.depths(texts) / head.ball.radius
        return self._order(norms[self.edges[:, 1]], norms[self.edges[:, 0]]).mean()

    def _image_order(self, head: HyperbolicHead, images: Tensor, labels: Tensor, texts: Tensor) -> Tensor:
        """L_gap within classes (eq. 13), in either reading."""
        if self.config.gap_images == "texts":
            norms = head.depths(images), head.depths(texts[labels])
            return self._order(norms[1] / head.ball.radius, norms[0] / head.ball.radius).mean()
        total, count = images.new_zeros(()), images.new_zeros(())
        for tree, parents in zip(self._centres(head.ball, images, labels), self.parents, strict=True):
            for below, above, parent in zip(tree[:-1], tree[1:], parents, strict=True):
                norms = head.depths(above.points)[parent], head.depths(below.points)
                violated = self._order(norms[0] / head.ball.radius, norms[1] / head.ball.radius)
                total = total + (violated * below.present).sum()
                count = count + below.present.sum()
        return total / count

    def _order(self, upper: Tensor, lower: Tensor) -> Tensor:
        return F.relu(upper - lower + self.config.gap)
