"""Class trees as text: nothing is lost, and what is odd is told."""

import re

import pytest
from grown_trees import grow
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.analysis.outline import CHILDREN, LEAVES, outline, problems
from lightning_modules.hierarchy import Tree

SOUND = Tree(
    "zoo", (("dog", "cat", "owl", "hen", "bus", "car"), ("mammal", "bird", "vehicle"), ("animal", "thing")),
    ((0, 0, 1, 1, 2, 2), (0, 0, 1)),
)  # fmt: skip


def body(text: str) -> list[str]:
    """The lines of the tree itself."""
    return text.partition("\n\n")[2].splitlines()


def test_parents_come_before_their_children_and_above_them() -> None:
    assert body(outline(SOUND)) == [
        "  animal (4)",
        "    mammal: dog, cat",
        "    bird: owl, hen",
        "  thing > vehicle: bus, car",
    ]


def test_sizes_are_told_from_the_top_down() -> None:
    top, below = outline(SOUND).splitlines()[1:3]
    assert re.search(r"level 2 +2 classes +largest: animal \(4 leaves\), smallest: thing \(2\)", top)
    assert re.search(r"level 1 +3 classes +largest: mammal \(2 leaves\)", below)


@given(st.integers(0, 10_000))
@settings(max_examples=50, deadline=None)
def test_every_class_is_there_once_and_every_leaf_is_counted(seed: int) -> None:
    tree = grow(seed, leaves=LEAVES)
    lines = body(outline(tree))
    words = re.findall(r"class \d+-\d+", "\n".join(lines))
    assert sorted(words) == sorted(name for names in tree.levels for name in names)


@pytest.mark.parametrize(("leaves", "classes"), [(LEAVES + 5, 1), (2 * (CHILDREN + 3), CHILDREN + 3)])
def test_what_is_too_long_is_counted(leaves: int, classes: int) -> None:
    """All in one class is cut to LEAVES names; too many classes with two leaves each to CHILDREN lines."""
    parents = tuple(place % classes for place in range(leaves))
    names = tuple(f"leaf-{place}" for place in range(leaves))
    text = outline(Tree("wide", (names, tuple(f"class-{place}" for place in range(classes))), (parents,)))
    shown = len(set(re.findall(r"leaf-\d+", "\n".join(body(text)))))
    more = int(re.search(r"\.\.\.and (\d+) more", "\n".join(body(text))).group(1))  # type: ignore[union-attr]
    assert shown + more * (1 if classes == 1 else 2) == leaves


def test_a_sound_tree_has_no_problem_but_the_classes_with_one_child() -> None:
    assert problems(SOUND) == ["level 2: 1 of 2 classes have one child (thing)"]
    assert "no problems" in outline(Tree("flat", (("a", "b"),), ()))


@pytest.mark.parametrize(
    ("tree", "part"),
    [
        (Tree("t", (("a", "b"), ("all",)), ((0, 0),)), "level 1 has one class, all"),
        (Tree("t", (("a", "b", "c"), ("x", "y")), ((0, 0, 1),)), "1 of 2 classes have one child (y)"),
        (Tree("t", (("a", "b"), ("crane", "crane")), ((0, 1),)), "several classes are called crane"),
        (Tree("t", (("a", "b"), ("animal", "x"), ("y", "animal")), ((0, 1), (0, 1))), "animal at levels 1, 2"),
        (Tree("t", (("a", "b"), ("x", "y"), ("x", "z")), ((0, 1), (0, 1))), "1 leaves repeat their top class (a)"),
    ],
)
def test_each_problem_is_told(tree: Tree, part: str) -> None:
    assert any(part in problem for problem in problems(tree))
    assert part in outline(tree)


def test_a_class_repeated_along_one_path_is_not_at_several_levels() -> None:
    tree = Tree("t", (("a", "b"), ("x", "y"), ("x", "z")), ((0, 1), (0, 1)))
    assert not any("at levels" in problem for problem in problems(tree))
    assert "x: a" in outline(tree)
