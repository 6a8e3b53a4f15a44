"""Class hierarchies: ancestors, the JSON form, and every way in which a tree can be broken."""

import json
from typing import Any

import pytest

from configs.errors import UserError
from lightning_modules.hierarchy import Tree

TREE: dict[str, Any] = {
    "levels": [["cat", "dog", "car", "bus", "rose"], ["animal", "vehicle", "plant"], ["living", "artefact"]],
    "parents": [[0, 0, 1, 1, 2], [0, 1, 0]],
}


def test_ancestors() -> None:
    tree = Tree.from_dict("toy", TREE)
    assert tree.depth == 2
    assert tree.ancestors(0).tolist() == [0, 1, 2, 3, 4]
    assert tree.ancestors(1).tolist() == [0, 0, 1, 1, 2]
    assert tree.ancestors(2).tolist() == [0, 0, 1, 1, 0]


def test_json_round_trip() -> None:
    tree = Tree.from_dict("toy", TREE)
    assert json.loads(json.dumps(tree.to_dict())) == TREE
    assert Tree.from_dict("toy", tree.to_dict()) == tree
    flat = Tree.from_dict("flat", {"levels": [["a", "b"]], "parents": []})
    assert flat.depth == 0
    assert flat.ancestors(0).tolist() == [0, 1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"parents": [[0, 0, 1, 1, 2]]}, "3 levels and 1 lists of parents"),
        ({"parents": [[0, 0, 1, 1], [0, 1, 0]]}, "4 parents for 5 classes at level 0"),
        ({"parents": [[0, 0, 1, 1, 3], [0, 1, 0]]}, "parent 3 of 'rose' at level 0"),
        ({"parents": [[0, 0, 1, 1, -1], [0, 1, 0]]}, "parent -1 of 'rose' at level 0"),
        ({"parents": [[0, 0, 1, 1, 1], [0, 1, 0]]}, "no child of 'plant' at level 1"),
        ({"levels": []}, "0 levels"),
        ({"levels": "cat"}, "is not a tree"),
        ({"levels": ["cat", "dog"]}, "is not a tree"),
        ({"parents": [[0, 0, 1, 1, True], [0, 1, 0]]}, "is not a tree"),
        ({"parents": None}, "is not a tree"),
    ],
)
def test_a_broken_tree_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as raised:
        Tree.from_dict("toy", TREE | change)
    assert "'toy'" in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("level", [-1, 3])
def test_a_level_that_is_not_there(level: int) -> None:
    with pytest.raises(UserError, match="to 2"):
        Tree.from_dict("toy", TREE).ancestors(level)


# From paths

CRANES = [("whooper", "bird crane", "bird"), ("derrick", "lifter crane", "lifter"), ("gull", "gull family", "bird")]
NAMES = {
    "whooper": "whooper", "derrick": "derrick", "gull": "gull", "bird crane": "crane", "lifter crane": "Crane",
    "gull family": "seabird", "bird": "wading bird", "lifter": "lifting device",
}  # fmt: skip


def test_paths_become_levels_and_a_shared_name_says_what_kind() -> None:
    tree = Tree.from_paths("toy", CRANES, NAMES)
    assert tree.levels == (
        ("whooper", "derrick", "gull"),
        ("crane, a kind of wading bird", "Crane, a kind of lifting device", "seabird"),
        ("wading bird", "lifting device"),
    )
    assert tree.parents == ((0, 1, 2), (0, 1, 0))


def test_names_are_told_apart_by_the_kinds_above_the_top_or_else_by_a_leaf() -> None:
    """At the top level there is no parent; WordNet has two tables, both of which are furniture."""
    paths = [path[:2] for path in CRANES]
    cranes = Tree.from_paths("toy", paths, NAMES, {"bird crane": "bird", "lifter crane": "lifter"}).levels[1]
    assert cranes == ("crane, a kind of wading bird", "Crane, a kind of lifting device", "seabird")
    assert Tree.from_paths("toy", paths, NAMES).levels[1][:2] == ("crane, such as whooper", "Crane, such as derrick")


def test_a_leaf_keeps_the_name_that_it_shares_with_a_superclass() -> None:
    tree = Tree.from_paths(
        "toy", [("0", "feline"), ("1", "dog")], {"0": "dog", "1": "pug", "feline": "cat", "dog": "dog"}
    )
    assert tree.levels == (("dog", "pug"), ("cat", "dog, such as pug"))


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        ([], "paths of one length"),
        ([("a", "b"), ("c",)], "paths of one length"),
        ([("a", "b"), ("a", "b")], "the leaf 'a' twice"),
        ([("a", "b", "c"), ("d", "b", "e")], "class 'b' of tree 'toy' has two parents, 'c' and 'e'"),
        ([("a", "b", "c", "b")], "has a cycle above 'a'"),
        ([("x1", "b"), ("x2", "b")], "two classes of tree 'toy' are called 'x'"),
    ],
)
def test_paths_that_are_no_tree(paths: list[tuple[str, ...]], message: str) -> None:
    names = {node: node[0] for path in paths for node in path}
    with pytest.raises(UserError, match=message):
        Tree.from_paths("toy", paths, names)


def test_a_class_that_stands_on_several_levels_is_one_class() -> None:
    tree = Tree.from_paths("toy", [("a", "top", "top"), ("b", "mid", "top")], {n: n for n in ("a", "b", "mid", "top")})
    assert tree.levels == (("a", "b"), ("top", "mid"), ("top",))
