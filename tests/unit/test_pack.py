import errno
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import webdataset
from folders import packed, png, samples

from configs.errors import DataError
from configs.schema.data import ImageFolderPack
from datamodules.folder import open_folder
from datamodules.pack import Sample, exclusive
from datamodules.sources import build


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_same_input_same_bytes(tmp_path: Path) -> None:
    packed(tmp_path / "a", {"train": 9, "val": 3})
    packed(tmp_path / "b", {"train": 9, "val": 3})
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    packed(tmp_path / "c", {"train": 9, "val": 4})
    assert contents(tmp_path / "c") != contents(tmp_path / "a")


def test_every_sample_is_read_back(tmp_path: Path) -> None:
    manifest = packed(tmp_path / "zoo", {"train": 9, "val": 3})
    assert [shard.samples for shard in manifest.split("train").shards] == [4, 4, 1]
    folder = open_folder(tmp_path / "zoo")
    assert folder.manifest == manifest
    reader = folder.reader("train")
    for number, sample in enumerate(samples("train", 9)):
        record = reader.read(number)
        assert (record.key, record.image, record.label, record.text) == (
            sample.key,
            sample.image,
            sample.label,
            sample.text,
        )
    assert len(list(folder.verify())) == 4


def test_webdataset_reads_the_shards(tmp_path: Path) -> None:
    manifest = packed(tmp_path / "zoo", {"train": 9})
    paths = [str(tmp_path / "zoo" / shard.path) for shard in manifest.split("train").shards]
    read = list(webdataset.WebDataset(paths, shardshuffle=False))
    expected = list(samples("train", 9))
    assert [(one["__key__"], one["png"], int(one["cls"]), one["txt"].decode()) for one in read] == [
        (one.key, one.image, one.label, one.text) for one in expected
    ]


def failing(error: BaseException) -> Iterator[Sample]:
    yield from samples("train", 6)
    raise error


@pytest.mark.parametrize("error", [ValueError("boom"), KeyboardInterrupt(), OSError(errno.EIO, "broken")])
@pytest.mark.parametrize("exists", [True, False])
def test_all_or_nothing(tmp_path: Path, error: BaseException, exists: bool) -> None:
    folder = tmp_path / "zoo"
    if exists:
        packed(folder, {"train": 5})
    before = contents(tmp_path)
    with pytest.raises(type(error)):
        packed(folder, {}, splits={"train": failing(error)})
    assert contents(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir()] == (["zoo"] if exists else [])


def test_full_disk(tmp_path: Path) -> None:
    packed(tmp_path / "zoo", {"train": 5})
    before = contents(tmp_path)
    with pytest.raises(DataError, match=r"disk is full .*zoo.*untouched"):
        packed(tmp_path / "zoo", {}, splits={"train": failing(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))})
    assert contents(tmp_path) == before


def test_a_complete_data_set_replaces_an_older_one(tmp_path: Path) -> None:
    packed(tmp_path / "zoo", {"train": 9, "old": 2})
    packed(tmp_path / "zoo", {"train": 5})
    packed(tmp_path / "fresh", {"train": 5})
    assert contents(tmp_path / "zoo") == contents(tmp_path / "fresh")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fresh", "zoo"]


def test_other_files_are_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "zoo").mkdir()
    (tmp_path / "zoo" / "thesis.tex").write_text("years of work")
    with pytest.raises(DataError, match="not a packed data set"):
        packed(tmp_path / "zoo", {"train": 5})
    assert (tmp_path / "zoo" / "thesis.tex").read_text() == "years of work"


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        (Sample("a.b", b"", "png", 0), "'a.b'"),
        (Sample("a/b", b"", "png", 0), "'a/b'"),
        (Sample("", b"", "png", 0), "''"),
        (Sample("k" * 91, b"", "png", 0), "1 to 90 bytes"),
        (Sample("train-1", b"", "png", 0), "'train-1' occurs twice"),
        (Sample("new", b"", "png", 3), "'new' in split 'train' has label 3, but there are 3"),
        (Sample("new", b"", "png", -1), "label -1"),
    ],
)
def test_bad_samples_are_named(tmp_path: Path, sample: Sample, message: str) -> None:
    with pytest.raises(DataError, match=message):
        packed(tmp_path / "zoo", {}, splits={"train": [*samples("train", 2), sample]})


def test_labels_of_a_split_with_its_own_concepts(tmp_path: Path) -> None:
    far = [Sample("one", png(1), "png", 4)]
    names = {"far": ["v", "w", "x", "y", "z"]}
    manifest = packed(tmp_path / "zoo", {}, splits={"far": far}, split_class_names=names)
    assert manifest.split("far").class_names == tuple(names["far"])
    with pytest.raises(DataError, match="label 4"):
        packed(tmp_path / "zoo", {}, splits={"far": far})


def test_repeated_class_names_and_empty_splits(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="classes 0 and 2"):
        packed(tmp_path / "zoo", {"train": 3}, class_names=["a", "b", "a"])
    with pytest.raises(DataError, match="'val' has no samples"):
        packed(tmp_path / "zoo", {"train": 3, "val": 0})


def test_the_lock_clears_what_a_killed_packer_left(tmp_path: Path) -> None:
    (tmp_path / ".zoo.staging-1").mkdir()
    (tmp_path / ".zoo.staging-1" / "half").write_bytes(b"x")
    with exclusive(tmp_path / "zoo"):
        assert not (tmp_path / ".zoo.staging-1").exists()


def folder_of_classes(root: Path) -> Path:
    for split, name, number in [("train", "bee", 0), ("train", "ant", 1), ("train", "ant", 2), ("val", "cow", 3)]:
        (root / split / name).mkdir(parents=True, exist_ok=True)
        (root / split / name / f"{number}.x.PNG").write_bytes(png(number))
    (root / "train" / "ant" / "notes.txt").write_text("not a picture")
    return root


def test_image_folder_keeps_bytes_and_labels(tmp_path: Path) -> None:
    root = folder_of_classes(tmp_path / "source")
    build(ImageFolderPack(root=str(root), shard_samples=2), tmp_path / "zoo")
    folder = open_folder(tmp_path / "zoo")
    assert folder.manifest.class_names == ("ant", "bee", "cow")
    reader = folder.reader("train")
    assert {reader.read(number).image: reader.read(number).label for number in range(3)} == {
        png(0): 1,
        png(1): 0,
        png(2): 0,
    }
    assert folder.reader("val").read(0).label == 2


def test_image_folder_without_splits_is_training(tmp_path: Path) -> None:
    root = folder_of_classes(tmp_path / "source") / "train"
    manifest = build(ImageFolderPack(root=str(root)), tmp_path / "zoo")
    assert (set(manifest.splits), manifest.class_names) == ({"train"}, ("ant", "bee"))
    again = build(ImageFolderPack(root=str(tmp_path / "nowhere")), tmp_path / "zoo", replace=False)
    assert again == manifest


def test_image_folder_mixes_classes_between_shards(tmp_path: Path) -> None:
    for name in ("ant", "bee"):
        (tmp_path / "source" / name).mkdir(parents=True)
        for number in range(16):
            (tmp_path / "source" / name / f"{number}.png").write_bytes(png(number + 100 * (name == "bee")))
    build(ImageFolderPack(root=str(tmp_path / "source"), shard_samples=8), tmp_path / "zoo")
    label = open_folder(tmp_path / "zoo").reader("train").index.label.reshape(4, 8)
    assert np.all(label.min(axis=1) == 0)
    assert np.all(label.max(axis=1) == 1)


def test_image_folder_without_pictures(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.pack\.root"):
        build(ImageFolderPack(root=str(tmp_path / "nowhere")), tmp_path / "zoo")
    (tmp_path / "source" / "ant").mkdir(parents=True)
    with pytest.raises(DataError, match=r"no .*png"):
        build(ImageFolderPack(root=str(tmp_path / "source")), tmp_path / "zoo")
