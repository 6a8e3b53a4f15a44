"""Folders of pictures, one folder a class. The files' bytes are packed as they are."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from configs.errors import DataError
from configs.schema.data import ImageFolderPack
from datamodules.manifest import Manifest
from datamodules.pack import Sample, pack
from datamodules.seeds import Purpose, stream

EXTENSIONS: dict[str, Literal["jpg", "png", "webp"]] = {".jpg": "jpg", ".jpeg": "jpg", ".png": "png", ".webp": "webp"}
TEMPLATES = ("a photo of a {c}.",)


def pack_image_folder(config: ImageFolderPack, folder: Path) -> Manifest:
    """Pack `root/{split}/{class}/*`, or `root/{class}/*` as the one split `train`. Class names are folder names.

    Raises:
        DataError: no such folder, or no pictures in it.
    """
    root = Path(config.root)
    if not root.is_dir():
        raise DataError(f"there is no folder {root}: correct data.pack.root")
    splits = _splits(root)
    class_names = sorted({name for classes in splits.values() for name in classes})
    labels = {name: label for label, name in enumerate(class_names)}
    files = {
        split: [(path, labels[name]) for name, paths in classes.items() for path in paths]
        for split, classes in splits.items()
    }
    return pack(
        folder,
        {split: _samples(found) for split, found in files.items() if found},
        name=root.resolve().name,
        version="1",
        class_names=class_names,
        templates=TEMPLATES,
        trees={},
        licence="as the source's",
        recipe={"source": "image_folder", "shard_samples": config.shard_samples},
        shard_samples=config.shard_samples,
    )


def _splits(root: Path) -> dict[str, dict[str, list[Path]]]:
    """Pictures by split and class, sorted."""
    with_splits = any(child.is_dir() for folder in _folders(root) for child in folder.iterdir())
    splits = {split.name: split for split in _folders(root)} if with_splits else {"train": root}
    found = {
        split: {folder.name: _pictures(folder) for folder in _folders(path) if _pictures(folder)}
        for split, path in splits.items()
    }
    if not any(found.values()):
        raise DataError(f"no {', '.join(EXTENSIONS)} under {root}: expected {{split}}/{{class}}/ or {{class}}/ folders")
    return found


def _folders(path: Path) -> list[Path]:
    return sorted(child for child in path.iterdir() if child.is_dir() and not child.name.startswith("."))


def _pictures(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in EXTENSIONS and path.is_file())


def _samples(files: Sequence[tuple[Path, int]]) -> Iterator[Sample]:
    # Listed class by class they would fill each shard with one class, and the plan mixes neighbouring shards only.
    for number in stream(Purpose.PACK, len(files)).permutation(len(files)):
        path, label = files[number]
        slug = re.sub(r"[^A-Za-z0-9_-]+", "_", f"{path.parent.name}-{path.stem}")[:60]
        yield Sample(f"{number:08d}-{slug}", path.read_bytes(), EXTENSIONS[path.suffix.lower()], label)
