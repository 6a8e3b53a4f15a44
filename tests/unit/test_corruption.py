"""What is wrong with data is said in one sentence that names the place, and never passes for data."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from folders import CLASSES, config, eval_batches, packed, png, samples, train_batches, train_plan

from configs.errors import DataError
from datamodules.classification import ClassificationDataModule
from datamodules.folder import open_folder
from datamodules.index import scan
from datamodules.loader import PlannedLoader
from datamodules.pack import Sample
from datamodules.plan import EvalPlan


def spread_image(folder: Path, offset_within: int = 20) -> str:
    """Flip one bit inside the first image of the first training shard; its key."""
    index = open_folder(folder).reader("train").index
    flip(folder / "train" / "0.tar", int(index.image_offset[0]) + offset_within)
    return index.key(0)


def flip(path: Path, offset: int) -> None:
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    path.write_bytes(content)


def consume(folder: Path, **changes: Any) -> int:
    """Read an epoch of training; how many samples were replaced."""
    settings = config(folder, **changes)
    plan = train_plan(folder)
    batches = train_batches(folder, plan, tolerant=settings.max_errors > 0)
    loader = PlannedLoader(batches, settings, seed=0)
    assert sum(len(batch["key"]) for batch in loader) == plan.batches * plan.batch_size
    return loader.errors


@pytest.fixture
def zoo(tmp_path: Path) -> Path:
    packed(tmp_path / "zoo", {"train": 16, "val": 4})
    return tmp_path / "zoo"


def test_missing_shard(zoo: Path) -> None:
    (zoo / "train" / "1.tar").unlink()
    with pytest.raises(DataError, match=r"train/1\.tar is missing"):
        open_folder(zoo)


@pytest.mark.parametrize("kept", [0, 100, 512, 1024 * 3, -1, -512, -1024])
def test_truncated_shard(zoo: Path, kept: int) -> None:
    path = zoo / "train" / "1.tar"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(DataError, match=r"train/1\.tar has \d+ bytes, its manifest says"):
        open_folder(zoo)


def test_every_truncation_is_seen_without_a_manifest(zoo: Path) -> None:
    content = (zoo / "train" / "0.tar").read_bytes()
    data_end = len(content.rstrip(b"\0")) + 1024  # two blocks of zeros after the last byte, and some padding
    whole, _ = scan(zoo, "train/0.tar")
    for kept in range(0, data_end - data_end % 512, 512):
        for cut in (kept, kept + 77):
            (zoo / "cut.tar").write_bytes(content[:cut])
            with pytest.raises(DataError, match=r"cut\.tar"):
                scan(zoo, "cut.tar")
    assert whole.samples == 4


@pytest.mark.parametrize("workers", [0, 1])
def test_flipped_bit_names_shard_and_key(zoo: Path, workers: int) -> None:
    key = spread_image(zoo)
    with pytest.raises(DataError, match=rf"sample '{key}' in .*train/0\.tar") as caught:
        consume(zoo, workers=workers)
    assert "\n" not in str(caught.value)
    assert "Traceback" not in str(caught.value)


def test_flipped_bit_anywhere_is_found_by_verification(zoo: Path) -> None:
    list(open_folder(zoo).verify())
    flip(zoo / "train" / "2.tar", 110)
    with pytest.raises(DataError, match=r"train/2\.tar is not what was packed"):
        list(open_folder(zoo).verify())


def test_duplicate_shard(zoo: Path) -> None:
    shutil.copy(zoo / "train" / "0.tar", zoo / "copy.tar")
    text = (zoo / "manifest.json").read_text()
    manifest = open_folder(zoo).manifest
    first, second = manifest.split("train").shards[:2]
    (zoo / "manifest.json").write_text(text.replace(second.sha256, first.sha256))
    with pytest.raises(DataError, match=r"same shard twice, as train/0\.tar and train/1\.tar"):
        open_folder(zoo)


def test_damaged_or_foreign_index(zoo: Path) -> None:
    shutil.copy(zoo / "index" / "val.npz", zoo / "index" / "train.npz")
    with pytest.raises(DataError, match="belongs to other shards"):
        open_folder(zoo).reader("train").read(0)
    content = (zoo / "index" / "val.npz").read_bytes()
    (zoo / "index" / "val.npz").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"val\.npz can't be read"):
        open_folder(zoo).reader("val").read(0)


def undecodable(folder: Path, bad: int) -> Path:
    broken = [Sample(f"bad-{number}", b"not a picture", "png", 0) for number in range(bad)]
    packed(folder, {}, splits={"train": [*samples("train", 16 - bad), *broken], "val": [*samples("val", 3), broken[0]]})
    return folder


@pytest.mark.parametrize("workers", [0, 2])
def test_undecodable_image_names_shard_and_key(tmp_path: Path, workers: int) -> None:
    with pytest.raises(DataError, match=r"sample 'bad-0' in .*train/3\.tar.*can't be decoded"):
        consume(undecodable(tmp_path / "zoo", 1), workers=workers)


@pytest.mark.parametrize("workers", [0, 2])
def test_tolerated_errors_are_counted_and_replaced(tmp_path: Path, workers: int) -> None:
    folder = undecodable(tmp_path / "zoo", 2)
    assert consume(folder, workers=workers, max_errors=20) >= 2


def test_the_budget_is_a_budget(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.max_errors=2.*bad-"):
        consume(undecodable(tmp_path / "zoo", 6), max_errors=2)


def test_replacements_do_not_depend_on_workers_or_ranks(tmp_path: Path) -> None:
    folder = undecodable(tmp_path / "zoo", 4)
    plan = train_plan(folder)
    alone = train_batches(folder, plan, tolerant=True)
    halves = [train_batches(folder, plan, tolerant=True, rank=rank, world=2) for rank in (0, 1)]
    for batch in range(plan.batches):
        fetched = [half[2, batch].batch for half in halves]
        whole = alone[2, batch].batch
        assert whole is not None
        assert whole["key"] == [key for half in fetched if half is not None for key in half["key"]]
        assert not any(key.startswith("bad") for key in whole["key"])


def test_nothing_readable_ends(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="in a row"):
        consume(undecodable(tmp_path / "zoo", 16), max_errors=10**6)


def test_evaluation_tolerates_nothing(tmp_path: Path) -> None:
    folder = undecodable(tmp_path / "zoo", 1)
    loader = PlannedLoader(eval_batches(folder, "val", EvalPlan(4, 2)), config(folder, max_errors=100), seed=0)
    with pytest.raises(DataError, match="bad-0"):
        list(loader)


def test_pictures_of_different_sizes(tmp_path: Path) -> None:
    odd = Sample("odd", png(1, side=9), "png", 0)
    packed(tmp_path / "zoo", {}, splits={"train": [*samples("train", 3), odd]})
    with pytest.raises(DataError, match=r"8x8|9x9.*data\.image_size"):
        consume(tmp_path / "zoo")


def published(root: Path, source: Path) -> Path:
    """CLIP_benchmark's layout, from a packed folder."""
    shutil.copytree(source / "train", root / "test")
    (root / "test" / "nshards.txt").write_text(str(len(list((root / "test").glob("*.tar")))))
    (root / "classnames.txt").write_text("\n".join(CLASSES))
    (root / "zeroshot_classification_templates.txt").write_text("a photo of a {c}.\na {c}\n")
    return root


@pytest.fixture
def layout(zoo: Path, tmp_path: Path) -> Path:
    return published(tmp_path / "published", zoo)


def test_published_layout_is_read_as_it_is(layout: Path) -> None:
    for _ in range(2):
        folder = open_folder(layout)
        assert folder.manifest.class_names == CLASSES
        assert folder.manifest.templates == ("a photo of a {c}.", "a {c}")
        reader = folder.reader("test")
        assert [reader.read(number).image for number in range(16)] == [one.image for one in samples("train", 16)]


def test_published_layout_is_indexed_once_and_again_after_a_change(layout: Path, monkeypatch: Any) -> None:
    first = open_folder(layout).manifest
    calls: list[str] = []
    monkeypatch.setattr(
        "datamodules.sources.clip_benchmark.scan", lambda root, path: calls.append(path) or scan(root, path)
    )
    assert open_folder(layout).manifest == first
    assert not calls
    (layout / "classnames.txt").write_text("x\ny\nz\n")
    assert open_folder(layout).manifest.class_names == ("x", "y", "z")
    assert len(calls) == 4


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda root: (root / "test" / "2.tar").unlink(), r"2\.tar is missing, nshards\.txt counts it"),
        (lambda root: (root / "test" / "nshards.txt").unlink(), r"nshards\.txt is missing"),
        (lambda root: (root / "test" / "nshards.txt").write_text("many"), "not a whole number"),
        (lambda root: flip(root / "test" / "1.tar", 2), r"1\.tar.*damaged|1\.tar.*no image"),
        (lambda root: shutil.copy(root / "test" / "1.tar", root / "test" / "2.tar"), "same shard twice"),
        (lambda root: cut_at_member(root / "test" / "1.tar"), r"1\.tar is truncated"),
    ],
)
def test_published_layout_damaged(layout: Path, damage: Any, message: str) -> None:
    damage(layout)
    with pytest.raises(DataError, match=message):
        open_folder(layout)


def cut_at_member(path: Path) -> None:
    """Drop the last sample, exactly where the one before ends."""
    index = scan(path.parent, path.name)[1]
    start = int(index.image_offset[-1]) - 3 * 512  # its header, and the label's header and block, come before
    path.write_bytes(path.read_bytes()[:start])


def test_label_out_of_range_in_a_published_layout(layout: Path) -> None:
    (layout / "classnames.txt").write_text("ant\nbee\n")
    module = ClassificationDataModule(config(layout), seed=0)
    with pytest.raises(DataError, match=r"sample 'train-2' in .*0\.tar has label 2, but there are 2 class names"):
        module.eval_loader("test", 4)


def test_repeated_class_names_in_a_published_layout(layout: Path, tmp_path: Path) -> None:
    (layout / "classnames.txt").write_text("crane\nbee\ncrane\n")
    with pytest.raises(DataError, match=r"classes 0 and 2 .* 'crane'"):
        ClassificationDataModule(config(layout), seed=0).setup()
    (tmp_path / "names.txt").write_text("crane (bird)\nbee\ncrane (machine)\n")
    module = ClassificationDataModule(config(layout, class_names=str(tmp_path / "names.txt")), seed=0)
    assert module.class_names[2] == "crane (machine)"


def test_neither_layout(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no data set at .*data\.pack"):
        open_folder(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"neither manifest\.json nor classnames\.txt"):
        open_folder(tmp_path)
