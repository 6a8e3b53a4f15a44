"""CLIP_benchmark's published layout, read where it lies and indexed once.

    classnames.txt  zeroshot_classification_templates.txt  {split}/nshards.txt  {split}/{i}.tar

https://github.com/LAION-AI/CLIP_benchmark; members are {key}.{jpg,png,webp} with {key}.cls, or {key}.txt for captions.
"""

import hashlib
import json
import os
from pathlib import Path

from tqdm import tqdm

from configs.errors import DataError
from datamodules.index import Index, scan
from datamodules.manifest import Manifest, Split, read_lines
from datamodules.pack import INDEX, exclusive, staged

CLASS_NAMES = "classnames.txt"
TEMPLATES = "zeroshot_classification_templates.txt"
COUNT = "nshards.txt"
STAMPS = "shards.json"


def is_layout(folder: Path) -> bool:
    """Whether the folder looks like the published layout."""
    return (folder / CLASS_NAMES).is_file() or any(folder.glob(f"*/{COUNT}"))


def index(folder: Path) -> tuple[Manifest, Path]:
    """The manifest, and the folder that holds it with the indices: `.immunoclip` beside the data, or the user's cache
    where that can't be written. A shard, name or template that changed since makes it anew.

    Raises:
        DataError: a missing count, shard or class list; a shard that is truncated or damaged.
    """
    shards = _shards(folder)
    stamps = _stamps(folder, shards)
    caches = _caches(folder)
    for cache in caches:
        if _is_fresh(cache, stamps):
            return Manifest.load(cache), cache
    cache = caches[0] if os.access(folder, os.W_OK) else caches[1]
    with exclusive(cache):
        if not _is_fresh(cache, stamps):
            _write(folder, shards, stamps, cache)
    return Manifest.load(cache), cache


def _shards(folder: Path) -> dict[str, list[str]]:
    """Paths of the shards by split, as many as nshards.txt says."""
    splits = sorted({path.parent.name for pattern in (COUNT, "*.tar") for path in folder.glob(f"*/{pattern}")})
    if not splits:
        raise DataError(f"{folder} has no split with {COUNT}: download at least one split into it")
    return {split: [f"{split}/{shard}.tar" for shard in range(_count(folder / split / COUNT))] for split in splits}


def _count(path: Path) -> int:
    try:
        count = int(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"{path} is missing: restore it, it tells how many shards there should be") from error
    except ValueError as error:
        raise DataError(f"{path} is not a whole number: restore it") from error
    if count < 1:
        raise DataError(f"{path} says {count} shards: restore it, or remove the split")
    return count


def _stamps(folder: Path, shards: dict[str, list[str]]) -> dict[str, list[int]]:
    """Size and time of change of every file that the manifest is made of."""
    stamps = {}
    paths = [path for split in shards.values() for path in split]
    for path in (*paths, *(name for name in (CLASS_NAMES, TEMPLATES) if (folder / name).is_file())):
        try:
            status = (folder / path).stat()
        except FileNotFoundError as error:
            raise DataError(f"shard {folder / path} is missing, {COUNT} counts it: restore it") from error
        stamps[path] = [status.st_size, status.st_mtime_ns]
    return stamps


def _caches(folder: Path) -> tuple[Path, Path]:
    user = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return folder / ".immunoclip", user / "immunoclip" / hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]


def _is_fresh(cache: Path, stamps: dict[str, list[int]]) -> bool:
    try:
        return bool(json.loads((cache / STAMPS).read_text("utf-8")) == stamps)
    except (OSError, ValueError):
        return False


def _write(folder: Path, shards: dict[str, list[str]], stamps: dict[str, list[int]], cache: Path) -> None:
    with staged(cache) as staging:
        splits = {}
        for name, paths in shards.items():
            scanned = [scan(folder, path) for path in tqdm(paths, desc=f"indexing {name}", unit=" shards")]
            splits[name] = Split(tuple(shard for shard, _ in scanned))
            Index.concatenate([part for _, part in scanned]).save(staging / INDEX / f"{name}.npz", splits[name].digest)
        Manifest(
            name=folder.resolve().name,
            version="published",
            class_names=_lines(folder / CLASS_NAMES),
            templates=_lines(folder / TEMPLATES),
            trees={},
            splits=splits,
            licence="the data set's own",
            recipe={"source": "clip_benchmark"},
        ).save(staging)
        (staging / STAMPS).write_text(json.dumps(stamps, sort_keys=True), "utf-8")


def _lines(path: Path) -> tuple[str, ...]:
    return read_lines(path) if path.is_file() else ()
