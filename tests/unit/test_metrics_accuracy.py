"""Accuracy over uneven, padded batches, at the leaves and at the levels of a tree."""

import math
import pickle

import pytest
import torch

from lightning_modules.hierarchy import Tree
from lightning_modules.metrics import Accuracy, Count

TREE = Tree("toy", (("cat", "dog", "car", "bus"), ("animal", "vehicle"), ("thing",)), ((0, 0, 1, 1), (0, 0)))


def test_levels_by_name() -> None:
    generator = torch.Generator().manual_seed(0)
    predictions, labels = torch.randint(4, (2, 50), generator=generator)
    for level in range(3):
        metric = Accuracy(TREE.ancestors(level))
        metric.update(predictions, labels, torch.ones(50, dtype=torch.bool))
        same = 0
        for names in zip(predictions.tolist(), labels.tolist(), strict=True):
            path = [TREE.levels[0][each] for each in names]
            for step in range(level):
                index = [TREE.levels[step].index(name) for name in path]
                path = [TREE.levels[step + 1][TREE.parents[step][each]] for each in index]
            same += path[0] == path[1]
        assert metric.compute().item() == same / 50
    assert metric.compute().item() == 1.0  # one root


def test_padding_weighs_nothing_and_batches_weigh_by_size() -> None:
    metric, count = Accuracy(), Count()
    for correct, wrong in ((4, 0), (0, 1)):
        predictions = torch.tensor([1] * correct + [2] * wrong + [1])
        labels = torch.tensor([1] * (correct + wrong) + [-1])
        valid = labels >= 0
        metric.update(predictions, labels, valid)
        count.update(valid)
    assert metric.compute().item() == 0.8
    assert count.compute().item() == 5


def test_empty_reset_and_pickle() -> None:
    metric = Accuracy(torch.tensor([0, 0, 1]))
    metric.update(torch.tensor([0]), torch.tensor([-1]), torch.tensor([False]))
    assert math.isnan(metric.compute().item())
    metric.update(torch.tensor([0]), torch.tensor([1]), torch.tensor([True]))
    assert pickle.loads(pickle.dumps(metric)).compute().item() == 1.0
    assert "ancestors" not in metric.state_dict()
    metric.reset()
    assert metric.total.item() == 0


def test_several_predictions_must_all_be_right() -> None:
    metric = Accuracy()
    predictions = torch.tensor([[1, 1, 1, 2], [1, 0, 1, 2]])
    metric.update(predictions, torch.tensor([1, 1, 0, 2]), torch.tensor([True, True, True, False]))
    assert metric.compute().item() == pytest.approx(1 / 3)
    metric.update(predictions[:, :0], torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.bool))
    assert metric.total.item() == 3


def test_no_answer_is_right_at_no_level() -> None:
    """Not even at the root, where the last leaf's ancestor is everyone's."""
    for level in range(3):
        metric = Accuracy(TREE.ancestors(level))
        metric.update(torch.tensor([-1, 3, -1]), torch.tensor([3, 3, 0]), torch.ones(3, dtype=torch.bool))
        assert metric.compute().item() == pytest.approx(1 / 3)
