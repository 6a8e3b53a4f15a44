"""Hierarchical metrics against literal ones, which walk up the tree from one class to the next."""

import itertools
import math
import pickle

import pytest
import torch
from torch import Tensor

from lightning_modules.hierarchy import Tree
from lightning_modules.metrics import Consistency, LevelAccuracy, TreeErrors

Node = tuple[int, int]  # level, class

TREES = {
    "one root": Tree(
        "one root", (("cat", "dog", "car", "bus"), ("animal", "vehicle"), ("thing",)), ((0, 0, 1, 1), (0, 0))
    ),
    "two tops": Tree(
        "two tops",
        (tuple("abcdef"), ("x", "y", "z"), ("u", "v")),
        ((0, 0, 1, 1, 2, 2), (0, 1, 1)),
    ),
    "roots above the root": Tree(
        "roots above the root", (("a", "b", "c"), ("x", "y"), ("r",), ("s",)), ((0, 0, 1), (0, 0), (0,))
    ),
    "short paths": Tree(
        "short paths",
        (
            ("kit fox", "arctic fox", "truck", "cart", "rock"),
            ("fox", "car", "vehicle", "thing"),
            ("animal", "vehicle", "thing"),
            ("thing",),
        ),
        ((0, 0, 1, 2, 3), (0, 1, 1, 2), (0, 0, 0)),
    ),
    "flat": Tree("flat", (("a", "b", "c"),), ()),
}


class Walker:
    """The tree as a graph whose repeated classes are one node."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree

    def path(self, leaf: int) -> list[Node | None]:
        """From the leaf to the root (None), one node for each class that it repeats."""
        found: list[Node | None] = []
        level, index = 0, leaf
        while True:
            # The highest class of a chain of one name stands for the chain.
            while level < self.tree.depth and self._name(level, index) == self._name(*self._up(level, index)):
                level, index = self._up(level, index)
            if len(self.tree.levels[level]) == 1:
                return [*found, None]
            found.append((level, index))
            if level == self.tree.depth:
                return [*found, None]
            level, index = self._up(level, index)

    def meeting(self, one: int, other: int) -> int:
        """The lowest level at which the two have the same class; that of the root where they have none below it."""
        ways = [[leaf] for leaf in (one, other)]
        for way in ways:
            for level in range(self.tree.depth):
                way.append(self._up(level, way[-1])[1])
        met = [level for level, classes in enumerate(zip(*ways, strict=True)) if classes[0] == classes[1]]
        return min(met, default=self.tree.depth + 1)

    def _up(self, level: int, index: int) -> Node:
        return level + 1, self.tree.parents[level][index]

    def _name(self, level: int, index: int) -> str:
        return self.tree.levels[level][index]


def distance(one: list[Node | None], other: list[Node | None]) -> int:
    """Edges between the first nodes of two paths to the root."""
    return min(place + other.index(node) for place, node in enumerate(one) if node in other)


def literal(tree: Tree, predictions: list[int], labels: list[int]) -> dict[str, float]:
    walker = Walker(tree)
    edges, heights, both, predicted, true = [], [], 0, 0, 0
    root = next((level for level, names in enumerate(tree.levels) if len(names) == 1), tree.depth + 1)
    for prediction, label in zip(predictions, labels, strict=True):
        to = walker.path(label)
        answer = [None] if prediction < 0 else walker.path(prediction)
        edges.append(distance(to, answer))
        said, truth = set(answer) - {None}, set(to) - {None}
        both, predicted, true = both + len(said & truth), predicted + len(said), true + len(truth)
        if prediction != label:
            heights.append(walker.meeting(prediction, label) if prediction >= 0 else root)
    return {
        "tree_induced_error": sum(edges) / len(edges),
        "lca_height": sum(heights) / len(heights),
        "hierarchical_precision": both / predicted,
        "hierarchical_recall": both / true,
        "mistakes": len(heights),
    }


def measure(tree: Tree, predictions: Tensor, labels: Tensor) -> dict[str, float]:
    metric = TreeErrors(tree)
    metric.update(predictions, labels, torch.ones_like(labels, dtype=torch.bool))
    return {name: float(value) for name, value in metric.compute().items()}


def draw(tree: Tree, count: int = 60, lowest: int = -1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(len(tree.name))
    leaves = len(tree.levels[0])
    predictions = torch.randint(lowest, leaves, (count,), generator=generator)
    return predictions, torch.randint(leaves, (count,), generator=generator)


@pytest.mark.parametrize("tree", TREES.values(), ids=TREES)
def test_errors_equal_walks_in_the_tree(tree: Tree) -> None:
    predictions, labels = draw(tree)
    assert measure(tree, predictions, labels) == pytest.approx(literal(tree, predictions.tolist(), labels.tolist()))


@pytest.mark.parametrize("tree", TREES.values(), ids=TREES)
def test_each_pair_of_leaves_by_itself(tree: Tree) -> None:
    """The distance is a metric on the leaves, and 0 for the right one alone."""
    count, metric = len(tree.levels[0]), TreeErrors(tree)
    apart = torch.zeros(count, count)
    for one, other in itertools.product(range(count), repeat=2):
        metric.reset()
        metric.update(torch.tensor([one]), torch.tensor([other]), torch.tensor([True]))
        found = {name: value.item() for name, value in metric.compute().items()}
        apart[one, other] = found["tree_induced_error"]
        assert (found["tree_induced_error"] == 0) == (one == other) == (found["mistakes"] == 0)
        assert (found["hierarchical_precision"] == 1 == found["hierarchical_recall"]) == (one == other)
        assert math.isnan(found["lca_height"]) == (one == other)
    assert torch.equal(apart, apart.T)
    assert (apart[:, None] <= apart[:, :, None] + apart[None]).all()


@pytest.mark.parametrize("name", ["one root", "two tops", "roots above the root", "flat"])
def test_paths_of_one_length_have_one_precision_and_recall(name: str) -> None:
    """And an error is as far down as up: its edges are twice its height."""
    tree = TREES[name]
    predictions, labels = draw(tree, lowest=0)
    found = measure(tree, predictions, labels)
    assert found["hierarchical_precision"] == found["hierarchical_recall"]
    wrong = found["mistakes"] / len(labels)
    assert found["tree_induced_error"] == pytest.approx(2 * found["lca_height"] * wrong)


def test_a_short_path_has_the_edges_of_the_tree_that_was_meant() -> None:
    """cart - vehicle - car - truck: three edges, where the levels have four; and rock hangs from the root."""
    tree = TREES["short paths"]
    assert measure(tree, torch.tensor([3]), torch.tensor([2]))["tree_induced_error"] == 3
    assert measure(tree, torch.tensor([4]), torch.tensor([3]))["tree_induced_error"] == 3
    found = measure(tree, torch.tensor([3]), torch.tensor([2]))
    assert found["hierarchical_precision"] == pytest.approx(1 / 2)  # of {cart, vehicle}
    assert found["hierarchical_recall"] == pytest.approx(1 / 3)  # of {truck, car, vehicle}


def test_no_prediction_is_the_root() -> None:
    tree = TREES["two tops"]
    found = measure(tree, torch.tensor([-1, 5]), torch.tensor([5, 5]))
    assert found == {
        "tree_induced_error": 1.5,
        "lca_height": 3,
        "hierarchical_precision": 1,
        "hierarchical_recall": 0.5,
        "mistakes": 1,
    }


def test_consistency_goes_from_each_level_to_the_next() -> None:
    tree = TREES["two tops"]
    above = torch.stack([tree.ancestors(level) for level in (1, 2)])
    everything = list(itertools.product(range(-1, 6), range(3), range(2)))
    leaf, first, second = torch.tensor(everything).T
    metric = Consistency(above)
    metric.update(leaf, torch.stack([first, second]), torch.ones_like(leaf, dtype=torch.bool))
    agree = [
        low >= 0 and tree.parents[0][low] == middle and tree.parents[1][middle] == high
        for low, middle, high in everything
    ]
    assert metric.compute().item() == sum(agree) / len(agree)
    assert sum(agree) == 6


def test_levels_are_counted_each_by_itself() -> None:
    metric = LevelAccuracy(2)
    metric.update(torch.tensor([[True, False, True], [False, False, True]]), torch.tensor([True, True, False]))
    metric.update(torch.tensor([[True], [True]]), torch.tensor([True]))
    assert metric.compute().tolist() == [2 / 3, 1 / 3]


def test_padding_weighs_nothing_and_empty_is_no_number() -> None:
    tree = TREES["two tops"]
    predictions, labels = draw(tree)
    valid = torch.rand(len(labels), generator=torch.Generator().manual_seed(1)) > 0.3
    padded = labels.masked_fill(~valid, -1)
    errors, consistency = TreeErrors(tree), Consistency(tree.ancestors(1)[None])
    accuracy = LevelAccuracy(1)
    none = torch.zeros_like(valid)
    for metric in (errors, consistency, accuracy):
        arguments = {
            errors: (predictions, padded),
            consistency: (predictions, tree.ancestors(1)[labels][None]),
            accuracy: ((predictions == padded)[None],),
        }[metric]
        metric.update(*arguments, none)
        assert metric.total.item() == 0
        metric.update(*arguments, valid)
        assert metric.total.item() == valid.sum()
    assert {name: value.item() for name, value in errors.compute().items()} == measure(
        tree, predictions[valid], labels[valid]
    )
    agreeing = (tree.ancestors(1)[predictions] == tree.ancestors(1)[labels]) & (predictions >= 0)
    assert consistency.compute().item() == agreeing[valid].double().mean().item()
    assert accuracy.compute().item() == (predictions == labels)[valid].double().mean().item()
    errors.reset()
    errors.update(predictions, padded, none)
    assert math.isnan(errors.compute()["tree_induced_error"].item())


def test_pickle_and_reset() -> None:
    tree = TREES["short paths"]
    metric = TreeErrors(tree)
    metric.update(torch.tensor([0]), torch.tensor([4]), torch.tensor([True]))
    assert pickle.loads(pickle.dumps(metric)).compute() == metric.compute()
    assert not metric.state_dict()
    metric.reset()
    assert metric.mistakes.item() == metric.total.item() == 0
