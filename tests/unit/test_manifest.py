import json
from dataclasses import replace
from pathlib import Path

import pytest

from configs.errors import DataError
from datamodules.manifest import Manifest, Shard, Split, check_class_names, read_lines


def manifest(**changes: object) -> Manifest:
    whole = Manifest(
        name="zoo",
        version="1",
        class_names=("cat", "dog"),
        templates=("a {c}",),
        trees={"kind": {"levels": [["cat", "dog"], ["animal"]], "parents": [[0, 0]]}},
        splits={
            "train": Split((Shard("train/0.tar", 3, 7, "aa"), Shard("train/1.tar", 2, 7, "bb"))),
            "far": Split((Shard("far/0.tar", 1, 7, "cc"),), ("spoon",)),
        },
        licence="CC0",
        recipe={"seed": 1},
    )
    return replace(whole, **changes)  # type: ignore[arg-type]


def test_what_is_saved_is_what_is_loaded(tmp_path: Path) -> None:
    manifest().save(tmp_path)
    assert Manifest.load(tmp_path) == manifest()
    first = (tmp_path / "manifest.json").read_bytes()
    Manifest.load(tmp_path).save(tmp_path)
    assert (tmp_path / "manifest.json").read_bytes() == first
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]


@pytest.mark.parametrize(
    "changes", [{"class_names": ("dog", "cat")}, {"templates": ("the {c}",)}, {"trees": {}}, {"splits": {}}]
)
def test_digest_changes_with_content(changes: dict[str, object]) -> None:
    assert manifest(**changes).digest != manifest().digest


def test_digest_ignores_names_and_licence() -> None:
    assert manifest(name="park", version="2", licence="MIT", recipe={}).digest == manifest().digest


def test_samples_and_unknown_split() -> None:
    assert manifest().samples("train") == 5
    with pytest.raises(DataError, match="no split 'val': it has far, train"):
        manifest().samples("val")


@pytest.mark.parametrize("twin", [Shard("train/0.tar", 1, 7, "dd"), Shard("far/0.tar", 3, 7, "aa")])
def test_the_same_shard_twice(twin: Shard) -> None:
    splits = {**manifest().splits, "far": Split((twin,))}
    with pytest.raises(DataError, match=f"train/0.tar and {twin.path}"):
        manifest(splits=splits)


def test_repeated_class_names_are_both_named() -> None:
    with pytest.raises(DataError, match=r"classes 0 and 2 of here are both called 'crane'.*data\.class_names"):
        check_class_names(["crane", "heron", "crane"], "here")
    check_class_names(["crane", "Crane"], "here")


def test_missing_and_broken_manifests(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no manifest\.json"):
        Manifest.load(tmp_path)
    for content in ("{", "[]", "null", json.dumps({"format": 1}), json.dumps({"format": 1, "splits": {"a": 3}})):
        (tmp_path / "manifest.json").write_text(content)
        with pytest.raises(DataError, match="not a manifest"):
            Manifest.load(tmp_path)
    (tmp_path / "manifest.json").write_text('{"format": 99}')
    with pytest.raises(DataError, match="format 99"):
        Manifest.load(tmp_path)


def test_files_must_be_there_and_whole(tmp_path: Path) -> None:
    for shard in (shard for split in manifest().splits.values() for shard in split.shards):
        (tmp_path / shard.path).parent.mkdir(exist_ok=True)
        (tmp_path / shard.path).write_bytes(b"1234567")
    manifest().check_files(tmp_path)
    (tmp_path / "train/1.tar").write_bytes(b"123")
    with pytest.raises(DataError, match=r"train/1\.tar has 3 bytes, its manifest says 7"):
        manifest().check_files(tmp_path)
    (tmp_path / "train/1.tar").unlink()
    with pytest.raises(DataError, match=r"train/1\.tar is missing"):
        manifest().check_files(tmp_path)


def test_lines(tmp_path: Path) -> None:
    path = tmp_path / "names.txt"
    path.write_text("cat\r\n dog \n\n")
    assert read_lines(path) == ("cat", "dog")
    path.write_text("cat\n\ndog\n")
    with pytest.raises(DataError, match="line 2"):
        read_lines(path)
    with pytest.raises(DataError, match="can't be read"):
        read_lines(tmp_path / "none.txt")
