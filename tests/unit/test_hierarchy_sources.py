"""Where trees come from: one tree said in several ways, and each way in which that is no tree of the classes."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from configs.compose import compose
from configs.errors import ConfigError, UserError
from configs.schema.hierarchy import DataTree, FileTree, FolderTree, HierarchyConfig, LLMTree, UnicodeTree
from datamodules.sources.openmoji.concepts import concepts
from datamodules.sources.openmoji.trees import trees
from lightning_modules.hierarchy import Forest, Tree, build

CLASSES = ("dog", "fox", "cat", "car", "bus")
NESTED = {"vehicle": ["bus", "car"], "animal": {"canine": ["fox", "dog"], "cat": None}}
LEVELS: dict[str, Any] = {
    "levels": [["bus", "car", "fox", "dog", "cat"], ["vehicle", "canine", "animal"], ["vehicle", "animal"]],
    "parents": [[0, 0, 1, 1, 2], [0, 1, 1]],
}
EXPECTED = Tree("t", (CLASSES, ("canine", "animal", "vehicle"), ("animal", "vehicle")), ((0, 0, 1, 2, 2), (0, 0, 1)))


def ways(tree: Tree) -> dict[str, tuple[str, ...]]:
    """Each leaf's ancestors, whatever the order of the classes."""
    columns = [[tree.levels[level][i] for i in tree.ancestors(level).tolist()] for level in range(tree.depth + 1)]
    return {way[0]: way[1:] for way in zip(*columns, strict=True)}


def of_file(path: Path, classes: tuple[str, ...] = CLASSES) -> Forest:
    return build(HierarchyConfig({"t": FileTree(path=str(path))}), classes, {})


@pytest.mark.parametrize(
    "content", [NESTED, LEVELS, [{"vehicle": ["bus", "car"]}, {"animal": [{"canine": ["fox", "dog"]}, "cat"]}]]
)
@pytest.mark.parametrize("suffix", ["yaml", "json"])
def test_one_tree_in_many_forms(content: Any, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"tree.{suffix}"
    path.write_text(json.dumps(content) if suffix == "json" else yaml.safe_dump(content), "utf-8")
    tree = of_file(path).tree("t")
    assert tree.levels[0] == CLASSES
    assert ways(tree) == ways(EXPECTED)


def test_folders(tmp_path: Path) -> None:
    for folder in ("vehicle/bus", "vehicle/car", "animal/canine/fox", "animal/canine/dog", "animal/.hidden"):
        (tmp_path / "root" / folder).mkdir(parents=True)
    (tmp_path / "elsewhere" / "below").mkdir(parents=True)
    (tmp_path / "root" / "animal" / "cat").symlink_to(tmp_path / "elsewhere")
    forest = build(HierarchyConfig({"t": FolderTree(root=str(tmp_path / "root"))}), CLASSES, {})
    assert ways(forest.tree("t")) == ways(EXPECTED)
    with pytest.raises(UserError, match=r"does not exist; correct hierarchy\.trees\.t\.root"):
        build(HierarchyConfig({"t": FolderTree(root=str(tmp_path / "gone"))}), CLASSES, {})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [dog, fox, cat]", "misses 'car', 'bus' of the data set's classes"),
        ("a: [dog, fox, cat, car, bus, bee]", "has the leaves 'bee', which the data set has not"),
        ("a: [dog, fox, cat, car, bus]\nb: [dog]", "has the leaf 'dog' twice, as b > dog and as a > dog"),
        ("a: &a {b: {c: *a}}", "has a cycle: the class 'b' lies below itself"),
        ("a: {b: {a: [dog]}}", "has a cycle: the class 'a' lies below itself"),
        ("a: &a [b, *a]", "where a class's name"),
        ("a: [1, dog]", "quote names"),
        ("a: dog", "quote names"),
        ("a: [dog", "can't be read"),
        ("", "holds no classes"),
        ("dog", "holds no classes"),
        ("levels: [[dog, dog]]\nparents: []", "misses"),
        ("levels: [[dog, fox, cat, car, bus, dog]]\nparents: []", "has 1 leaves twice"),
        ("levels: [[dog]]\nparents: [[0]]", "1 levels and 1 lists of parents"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_tree_of_the_classes(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "tree.yaml"
    path.write_text(text, "utf-8")
    with pytest.raises(UserError, match=message) as raised:
        of_file(path)
    assert "\n" not in str(raised.value)


def test_one_root_where_one_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "tree.yaml"
    path.write_text("animal: [dog, fox, cat]\nvehicle: [car, bus]", "utf-8")
    source = FileTree(path=str(path))
    assert build(HierarchyConfig({"t": source}), CLASSES, {}).levels[1].size == 2
    with pytest.raises(UserError, match="has 2 roots, animal, vehicle, where one is asked for"):
        build(HierarchyConfig({"t": source}, one_root=True), CLASSES, {})
    path.write_text("thing: {animal: [dog, fox, cat], vehicle: [car, bus]}", "utf-8")
    forest = build(HierarchyConfig({"t": source}, one_root=True), CLASSES, {})
    assert forest.skipped == (("t", 2),)


def test_a_data_set_brings_its_trees_and_its_classes_may_be_called_otherwise() -> None:
    leaves = concepts("id")
    names = tuple(f"a {leaf.name}" for leaf in leaves)
    every = build(HierarchyConfig(), names, trees(leaves))
    assert [tree.name for tree in every.trees] == ["unicode", "wordnet"]
    assert every.leaves == names
    one = build(HierarchyConfig({"groups": DataTree(name="unicode")}), names, trees(leaves))
    assert one.tree("groups").levels == every.tree("unicode").levels
    with pytest.raises(UserError, match="did you mean 'unicode'"):
        build(HierarchyConfig({"unicod": DataTree()}), names, trees(leaves))
    with pytest.raises(UserError, match=f"has {len(names)} leaves for 2 classes"):
        build(HierarchyConfig(), names[:2], trees(leaves))


def test_unicodes_groups_by_label_or_by_keyword() -> None:
    forest = build(HierarchyConfig({"u": UnicodeTree()}), ("dog face", "Fox", "penguin", "automobile"), {})
    assert ways(forest.tree("u")) == {
        "dog face": ("animal mammal", "animals nature"),
        "Fox": ("animal mammal", "animals nature"),
        "penguin": ("animal bird", "animals nature"),
        "automobile": ("transport ground", "travel places"),
    }


@pytest.mark.parametrize(
    ("classes", "message"),
    [(("dog", "no such emoji"), "no emoji called 'no such emoji'"), (("happy",), "several groups")],
)
def test_what_unicode_does_not_tell(classes: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build(HierarchyConfig({"u": UnicodeTree()}), classes, {})


def test_a_language_models_tree_is_read_where_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "superclasses.yaml"
    config = HierarchyConfig({"t": LLMTree(file=str(path))})
    with pytest.raises(ConfigError, match=r"hierarchy\.trees\.t\.file=.*python -m experiments write-hierarchy"):
        build(config, CLASSES, {})
    path.write_text(yaml.safe_dump({leaf: list(way) for leaf, way in ways(EXPECTED).items()}), "utf-8")
    assert ways(build(config, CLASSES, {}).tree("t")) == ways(EXPECTED)


def test_a_configuration_adds_trees_to_its_bases() -> None:
    trees = compose(
        "quickstart", ["hierarchy.trees.own.kind=file", "hierarchy.trees.own.path=tree.yaml"]
    ).config.hierarchy.trees
    assert trees["own"] == FileTree(path="tree.yaml")
    with pytest.raises(ConfigError, match=r"hierarchy\.trees\.w\.levels must be >= 1"):
        compose("quickstart", ["hierarchy.trees.w.kind=wordnet", "hierarchy.trees.w.levels=0"])
