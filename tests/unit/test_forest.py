"""Forests: one numbering of all classes, levels without contrast, and trees that do not belong together."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.errors import DataError
from lightning_modules.hierarchy import Forest, Tree

LEAVES = ("cat", "dog", "car", "bus")
KIND = Tree("kind", (LEAVES, ("animal", "vehicle"), ("thing",)), ((0, 0, 1, 1), (0, 0)))
SIZE = Tree("size", (LEAVES, ("small", "middling", "large")), ((0, 1, 2, 2),))


@st.composite
def forests(draw: st.DrawFn) -> Forest:
    leaves = tuple(f"leaf {i}" for i in range(draw(st.integers(2, 7))))
    trees = []
    for name in draw(st.lists(st.sampled_from("abc"), unique=True)):
        levels, parents = [leaves], []
        for number in range(draw(st.integers(1, 3))):
            drawn = draw(st.lists(st.integers(0, 3), min_size=len(levels[-1]), max_size=len(levels[-1])))
            used = sorted(set(drawn))
            parents.append(tuple(used.index(parent) for parent in drawn))
            levels.append(tuple(f"{name}{number}{parent}" for parent in used))
        trees.append(Tree(name, tuple(levels), tuple(parents)))
    return Forest(leaves, tuple(trees))


@settings(max_examples=50, deadline=None)
@given(forests())
def test_every_node_has_one_place_and_every_leaf_its_ancestor(forest: Forest) -> None:
    covered = [node for level in forest.levels for node in range(forest.size)[level.nodes]]
    assert covered == list(range(forest.size))
    for level in forest.levels:
        assert forest.names[level.nodes] == level.names
        assert set(level.ancestors) == set(range(level.size))
        for leaf, ancestor in zip(forest.leaves, level.ancestors, strict=True):
            assert _climb(forest, level.tree, leaf, level.number) == level.names[ancestor]


@settings(max_examples=50, deadline=None)
@given(forests())
def test_a_level_is_there_or_skipped_for_having_one_class(forest: Forest) -> None:
    levels = {(level.tree, level.number): level.size for level in forest.levels[1:]}
    for tree in forest.trees:
        for number in range(1, tree.depth + 1):
            assert ((tree.name, number) in forest.skipped) == (len(tree.levels[number]) == 1)
            assert ((tree.name, number) in levels) == (len(tree.levels[number]) > 1)


def test_levels_in_order() -> None:
    forest = Forest(LEAVES, (KIND, SIZE))
    assert [(level.tree, level.number, level.start) for level in forest.levels] == [
        (None, 0, 0),
        ("kind", 1, 4),
        ("size", 1, 6),
    ]
    assert forest.skipped == (("kind", 2),)
    assert forest.size == 9
    assert forest.tree("size") is SIZE


@pytest.mark.parametrize(
    ("leaves", "trees", "message"),
    [
        ((), (), "no leaves"),
        (("cat", "cat"), (), "two leaves of a forest are called 'cat'"),
        (LEAVES, (KIND, KIND), "two trees of a forest are called 'kind'"),
        (LEAVES[:3], (KIND,), "'kind' has 4 leaves for 3 classes"),
        (("dog", "cat", "car", "bus"), (KIND,), "leaf 0 of tree 'kind' is 'cat' where the data set has 'dog'"),
    ],
)
def test_what_is_no_forest(leaves: tuple[str, ...], trees: tuple[Tree, ...], message: str) -> None:
    with pytest.raises(DataError, match=message):
        Forest(leaves, trees)


def test_some_trees_of_a_forest_are_a_forest() -> None:
    assert Forest(LEAVES, (KIND, SIZE)).only(["size"]) == Forest(LEAVES, (SIZE,))
    with pytest.raises(DataError, match="did you mean 'kind'"):
        Forest(LEAVES, (KIND, SIZE)).only(["kid"])


def test_a_tree_that_is_not_there() -> None:
    with pytest.raises(DataError, match="did you mean 'kind'"):
        Forest(LEAVES, (KIND,)).tree("kid")


def _climb(forest: Forest, tree: str | None, leaf: str, steps: int) -> str:
    """One parent after the other, by name."""
    node = leaf
    for level in range(steps):
        assert tree is not None
        names, above = forest.tree(tree).levels[level : level + 2]
        node = above[forest.tree(tree).parents[level][names.index(node)]]
    return node
