"""Cuts: whatever the depths of the leaves, what comes out is a tree of as many levels as were asked for."""

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.schema.hierarchy import Cut
from lightning_modules.hierarchy import Tree
from lightning_modules.hierarchy.cut import Path, cut, without_only_children

CUTS: tuple[Cut, ...] = ("nearest", "equal_depth", "balanced")
#       root - animal - mammal - canine - {fox, wolf};  mammal - cat;  animal - eel;  root - rose
PATHS: list[Path] = [
    ("fox", "canine", "mammal", "animal", "root"),
    ("wolf", "canine", "mammal", "animal", "root"),
    ("cat", "mammal", "animal", "root"),
    ("eel", "animal", "root"),
    ("rose", "root"),
]


@st.composite
def trees_of_any_shape(draw: st.DrawFn) -> list[Path]:
    """Node i hangs below an earlier one; those without children are the leaves."""
    parents = [draw(st.integers(0, max(i - 1, 0))) for i in range(1, draw(st.integers(2, 30)))]
    above = {str(i): str(parent) for i, parent in enumerate(parents, 1)}
    leaves = sorted(set(above) - set(above.values()))
    paths = []
    for leaf in leaves:
        path = [leaf]
        while path[-1] in above:
            path.append(above[path[-1]])
        paths.append(tuple(path))
    return paths


@settings(max_examples=100, deadline=None)
@given(trees_of_any_shape(), st.integers(1, 6), st.sampled_from(CUTS))
def test_every_cut_is_a_tree_of_the_leaves_own_ancestors_in_order(paths: list[Path], levels: int, how: Cut) -> None:
    found = cut(paths, levels, how)
    for path, kept in zip(paths, found, strict=True):
        assert len(kept) == levels + 1
        assert kept[0] == path[0]
        places = [path.index(node) for node in kept]
        assert places == sorted(places)
        assert places[1] >= 1
    tree = Tree.from_paths("cut", found, {node: node for path in paths for node in path})
    assert tree.depth == levels


@settings(max_examples=100, deadline=None)
@given(trees_of_any_shape(), st.integers(1, 6))
def test_balanced_classes_hold_their_share_of_the_leaves(paths: list[Path], levels: int) -> None:
    found = cut(paths, levels, "balanced")
    below = Counter(node for path in paths for node in path)
    for level in range(1, levels + 1):
        for path, kept in zip(paths, found, strict=True):
            share = len(paths) ** (level / (levels + 1))
            nearer = path[1 : path.index(kept[level])]
            assert below[kept[level]] >= share - 1e-6
            assert all(below[node] < share for node in nearer)


@settings(max_examples=50, deadline=None)
@given(trees_of_any_shape())
def test_without_only_children_every_ancestor_branches_and_no_set_of_leaves_is_lost(paths: list[Path]) -> None:
    kept = without_only_children(paths)
    children = {(child, parent) for path in kept for child, parent in pairwise(path)}
    assert all(count > 1 for count in Counter(parent for _, parent in children).values())
    before, after = ({_leaves(node, each) for path in each for node in path} for each in (paths, kept))
    assert after == before


def test_nearest_repeats_the_top() -> None:
    assert cut(PATHS, 3, "nearest") == [
        ("fox", "canine", "mammal", "animal"),
        ("wolf", "canine", "mammal", "animal"),
        ("cat", "mammal", "animal", "root"),
        ("eel", "animal", "root", "root"),
        ("rose", "root", "root", "root"),
    ]


def test_equal_depth_is_deaf_to_what_lies_above_the_meeting_place() -> None:
    """The way to WordNet's root is shared by all classes of a narrow data set."""
    taller: list[Path] = [(*path, "thing", "entity") for path in PATHS]
    assert cut(taller, 3, "equal_depth") == cut(PATHS, 3, "equal_depth")


def test_equal_depth_of_an_even_tree_takes_every_other_level() -> None:
    paths: list[Path] = [tuple(f"{depth}{i >> depth}" for depth in range(7)) for i in range(64)]
    assert cut(paths, 2, "equal_depth") == [(path[0], path[2], path[4]) for path in paths]


@pytest.mark.parametrize("how", CUTS)
def test_a_leaf_without_ancestors_stands_for_them(how: Cut) -> None:
    assert cut([("alone",)], 2, how) == [("alone", "alone", "alone")]


def _leaves(node: str, paths: list[Path]) -> frozenset[str]:
    return frozenset(path[0] for path in paths if node in path)
