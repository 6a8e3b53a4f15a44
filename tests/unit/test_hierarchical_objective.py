"""The hierarchical objective against loops over images, classes and levels."""

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from configs.errors import ConfigError
from configs.schema import objective as schema
from lightning_modules.heads import CosineHead, Entry, Head, HyperbolicHead
from lightning_modules.hierarchy import Forest, Tree
from lightning_modules.objectives import Embedded, Hierarchical, Views

LEAVES = ("fox", "wolf", "cat", "jeep", "bus")
KINDS = Tree("kinds", (LEAVES, ("canine", "feline", "car"), ("animal", "vehicle")), ((0, 0, 1, 2, 2), (0, 0, 1)))
SIZES = Tree("sizes", (LEAVES, ("small", "large")), ((0, 1, 0, 0, 1),))
FOREST = Forest(LEAVES, (KINDS, SIZES))
LABELS = torch.tensor([0, 1, 0, 3, 2, 0])
HEAD = HyperbolicHead(1.3, Entry(-1.0, 0.8, 2.0), Entry(-1.2, 0.7, 1.5), 0.7)


def drawn(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


IMAGES, TEXTS = drawn(6, 4, seed=0), HEAD.texts(drawn(FOREST.size, 2, 4, seed=1)).detach()


def made(head: Head = HEAD, forest: Forest = FOREST, **settings: Any) -> Hierarchical:
    return Hierarchical(schema.Hierarchical(**settings), head, forest, torch.device("cpu"))


def path(tree: Tree, leaf: int) -> list[int]:
    """Of a leaf, its class at every level."""
    classes = [leaf]
    for parents in tree.parents:
        classes.append(parents[classes[-1]])
    return classes


def midpoint(points: list[Tensor]) -> Tensor:
    """The point whose sum of gyrations is balanced, through the hyperboloid instead of Klein coordinates."""
    r = HEAD.ball.curvature
    lifted = [
        torch.cat([1 + r * x @ x.T if x.ndim > 1 else (1 + r * (x @ x))[None], 2 * x]) / (1 - r * x @ x) for x in points
    ]
    total = torch.stack(lifted).sum(0)
    total = total / (total[0].square() - r * total[1:].square().sum()).sqrt()
    return total[1:] / (1 + total[0])


def centre(points: Tensor, tree: Tree, level: int, node: int) -> Tensor | None:
    """Children first, recursively; None where the batch has no image of the class."""
    if level == 0:
        own = [points[row] for row in range(len(LABELS)) if LABELS[row] == node]
    else:
        below = [child for child, parent in enumerate(tree.parents[level - 1]) if parent == node]
        own = [found for child in below if (found := centre(points, tree, level - 1, child)) is not None]
    return midpoint(own) if own else None


def node(tree: Tree, level: int, index: int) -> int:
    """Its place among the forest's nodes."""
    (found,) = (each for each in FOREST.levels if each.number == level and each.tree in (tree.name, None))
    return found.start + index


def by_hand(
    row: int, negatives: str, parents: str, weights: list[float] | None = None, only: int | None = None
) -> float:
    """The loss of one image: levels of trees, one after the other."""
    points, total = HEAD.images(IMAGES).double(), 0.0
    for tree in FOREST.trees:
        for level, names in enumerate(tree.levels):
            if only is not None and level != only:
                continue
            classes = path(tree, int(LABELS[row]))
            image = points[row] if level == 0 or parents == "image" else centre(points, tree, level, classes[level])
            rivals = [(level, index) for index in range(len(names))]
            if negatives in ("below", "both") and level > 0:
                rivals += [
                    (level - 1, child)
                    for child, parent in enumerate(tree.parents[level - 1])
                    if parent != classes[level]
                ]
            if negatives in ("above", "both") and level < tree.depth:
                rivals += [(level + 1, i) for i in range(len(tree.levels[level + 1])) if i != classes[level + 1]]
            texts = [TEXTS[node(tree, *rival)].double() for rival in rivals]
            logits = [-math.exp(0.7) * HEAD.ball.distance(image, text).item() for text in texts]
            omega = 1 - level / (tree.depth + 1) if weights is None else weights[level]
            total += omega * (math.log(sum(map(math.exp, logits))) - logits[classes[level]])
    return total


@pytest.mark.parametrize(
    ("negatives", "parents"), itertools.product(("none", "below", "above", "both"), ("image", "midpoint"))
)
def test_levels(negatives: str, parents: str) -> None:
    found = made(negatives=negatives, parents=parents).inner(IMAGES, LABELS, TEXTS)
    expected = [by_hand(row, negatives, parents) for row in range(6)]
    torch.testing.assert_close(found, torch.tensor(expected), rtol=1e-5, atol=1e-5)


def test_level_weights_and_a_leaf_adversary() -> None:
    weighted = made(level_weights=[2.0, 0.5, 0.0]).inner(IMAGES, LABELS, TEXTS)
    torch.testing.assert_close(
        weighted, torch.tensor([by_hand(row, "both", "midpoint", [2.0, 0.5, 0.0]) for row in range(6)])
    )
    leaf = made(adversary="leaf")
    torch.testing.assert_close(
        leaf.inner(IMAGES, LABELS, TEXTS), torch.tensor([by_hand(row, "both", "midpoint", only=0) for row in range(6)])
    )
    every = leaf.outer(Views(Embedded(IMAGES)), LABELS, TEXTS)[1]["levels"]  # what is minimised has all levels
    assert every == pytest.approx(sum(by_hand(row, "both", "midpoint") for row in range(6)) / 6, rel=1e-5)


@pytest.mark.parametrize(
    ("adversary", "weights"),
    [("leaf", [0.0, 1.0]), ("per_level", [1.0, 0.0, 1.0]), ("universal", [0.0, 0.0, 0.0, 0.0, 1.0])],
)
def test_an_adversary_without_a_level_to_attack_is_refused(adversary: str, weights: list[float]) -> None:
    with pytest.raises(ConfigError, match=f"leave the adversary {adversary} without a level to attack"):
        made(adversary=adversary, level_weights=weights)


def test_an_adversary_per_level_raises_that_level_alone() -> None:
    objective = made(adversary="per_level")
    assert objective.needs.adversaries == 3
    copies, labels = torch.cat([IMAGES] * 3), torch.cat([LABELS] * 3)
    expected = [by_hand(row, "both", "midpoint", only=level) for level in range(3) for row in range(6)]
    torch.testing.assert_close(objective.inner(copies, labels, TEXTS), torch.tensor(expected), rtol=1e-5, atol=1e-5)
    parts = objective.outer(Views(Embedded(copies)), labels, TEXTS)[1]
    assert parts["levels"] == pytest.approx(sum(expected) / 6, rel=1e-5)


def test_clean_images_come_once_for_several_adversaries() -> None:
    objective = made(adversary="per_level", clean_weight=0.5)
    views = Views(Embedded(torch.cat([IMAGES] * 3)), Embedded(IMAGES))
    parts = objective.outer(views, torch.cat([LABELS] * 3), TEXTS)[1]
    expected = sum(by_hand(row, "both", "midpoint") for row in range(6)) / 6
    assert parts["clean"] == pytest.approx(0.5 * expected, rel=1e-5)


def test_neighbourhood_and_norm_orders() -> None:
    views = Views(Embedded(IMAGES))
    loss, parts = made(vic_weight=0.3, vic_radius=0.8, gap_weight=0.7, gap=0.05).outer(views, LABELS, TEXTS)
    assert loss.item() == pytest.approx(sum(part.item() for part in parts.values()), rel=1e-6)
    points, radius = HEAD.images(IMAGES).double(), HEAD.ball.radius
    far = [HEAD.ball.distance(points[row], TEXTS[LABELS[row]].double()).item() for row in range(6)]
    assert parts["vic"] == pytest.approx(0.3 * sum(max(0, each - 0.8) for each in far) / 6, rel=1e-5)

    def violation(upper: Tensor, lower: Tensor) -> float:
        return max(0.0, (upper.norm() - lower.norm()).item() / radius + 0.05)

    texts, images = [], []
    for tree in FOREST.trees:
        for level, parents in enumerate(tree.parents):
            for child, parent in enumerate(parents):
                texts.append(violation(TEXTS[node(tree, level + 1, parent)], TEXTS[node(tree, level, child)]))
                below, above = centre(points, tree, level, child), centre(points, tree, level + 1, parent)
                if below is not None and above is not None:
                    images.append(violation(above, below))
    assert parts["gap_texts"] == pytest.approx(0.7 * sum(texts) / len(texts), rel=1e-4)
    assert parts["gap_images"] == pytest.approx(0.7 * sum(images) / len(images), rel=1e-4)
    other = made(gap_weight=0.7, gap=0.05, gap_images="texts").outer(views, LABELS, TEXTS)[1]
    order = [violation(TEXTS[LABELS[row]], points[row]) for row in range(6)]
    assert other["gap_images"] == pytest.approx(0.7 * sum(order) / 6, rel=1e-4)


def test_a_class_that_the_levels_above_repeat_is_no_negative_of_itself() -> None:
    """Cut trees repeat their top, and a class can be a parent here and a grandparent there."""
    tree = Tree("cut", (("a", "b", "c"), ("x", "y", "y2"), ("x", "y"), ("x", "y")), ((0, 1, 2), (0, 1, 1), (0, 1)))
    objective = made(forest=Forest(("a", "b", "c"), (tree,)))
    for term in objective.terms:
        names = [objective_names(tree)[place] for place in term.texts.tolist()]
        own = tree.levels[term.number]
        for row, mask in enumerate(term.allowed):
            rivals = [name for name, allowed in list(zip(names, mask.tolist(), strict=True))[len(own) :] if allowed]
            assert own[row] not in rivals
    top = objective.terms[-1]
    assert [names for names, allowed in zip(top.texts.tolist(), top.allowed[0].tolist(), strict=True) if allowed]


def objective_names(tree: Tree) -> tuple[str, ...]:
    return Forest(tree.levels[0], (tree,)).names


def test_cosines_have_levels_but_no_depth() -> None:
    head = CosineHead(10.0)
    texts = head.texts(drawn(FOREST.size, 2, 4, seed=1))
    objective = made(head, geometry=schema.Cosine(), parents="image", negatives="none", vic_radius=0.2)
    loss, parts = objective.outer(Views(Embedded(IMAGES)), LABELS, texts)
    assert parts.keys() == {"levels", "vic"}
    cosines = head.images(IMAGES) @ texts.T
    expected = sum(
        (1 - level.number / (FOREST.tree(level.tree).depth + 1) if level.tree else 2.0)
        * -(10 * cosines[:, level.nodes]).log_softmax(1)[range(6), torch.tensor(level.ancestors)[LABELS]].mean()
        for level in FOREST.levels
    )
    torch.testing.assert_close(parts["levels"], expected)
    own = cosines[range(6), LABELS]
    torch.testing.assert_close(parts["vic"], 0.1 * (1 - own - 0.2).relu().mean())
    torch.testing.assert_close(loss, parts["levels"] + parts["vic"])


def test_without_a_level_there_is_nothing_to_do() -> None:
    alone = Tree("alone", (LEAVES, ("thing",)), ((0,) * 5,))
    for trees in ((), (alone,)):
        with pytest.raises(ConfigError, match="needs a class tree"):
            made(forest=Forest(LEAVES, trees))


def test_the_norm_order_of_images_has_midpoints_whatever_the_levels_compare() -> None:
    views = Views(Embedded(IMAGES))
    one, other = (
        made(parents=parents).outer(views, LABELS, TEXTS)[1]["gap_images"] for parents in ("image", "midpoint")
    )
    assert one == other > 0


def test_gradients_are_finite_and_reach_images_texts_and_scales() -> None:
    head = HyperbolicHead.from_dict(HEAD.as_dict())
    images, prompts = IMAGES.clone().requires_grad_(), drawn(FOREST.size, 2, 4, seed=1).requires_grad_()
    objective = made(head, vic_radius=0.1, gap=0.3)
    objective.outer(Views(Embedded(images)), LABELS, head.texts(prompts))[0].backward()
    for found in (images.grad, prompts.grad, *(parameter.grad for parameter in head.parameters())):
        assert found is not None
        assert found.isfinite().all()
        assert found.abs().sum() > 0
