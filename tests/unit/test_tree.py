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
