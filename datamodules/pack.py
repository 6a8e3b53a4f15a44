"""Packing: samples in, a folder of tar shards with index and manifest out. Same input, same bytes; all or nothing."""

import errno
import fcntl
import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from tqdm import tqdm
from webdataset import TarWriter

from configs.errors import DataError
from datamodules import manifest as manifests
from datamodules.index import Index, scan
from datamodules.manifest import Manifest, Shard, Split, check_class_names

INDEX = "index"
LONGEST_KEY = 90  # the plainest tar header has 100 bytes for key, dot and extension


@dataclass(frozen=True)
class Sample:
    """One picture as encoded bytes, with a label, a caption, or both. `key` has no dots or slashes.

    extension  npy: float16 or float32 (height, width, 3) in [0, 1], for pixels that must not be rounded.
    """

    key: str
    image: bytes
    extension: Literal["png", "jpg", "webp", "npy"]
    label: int | None = None
    text: str | None = None


def pack(
    folder: Path,
    splits: Mapping[str, Iterable[Sample]],
    *,
    name: str,
    version: str,
    class_names: Sequence[str],
    templates: Sequence[str],
    trees: Mapping[str, Any],
    licence: str,
    recipe: Mapping[str, Any],
    shard_samples: int,
    split_class_names: Mapping[str, Sequence[str]] | None = None,
    progress: bool = True,
) -> Manifest:
    """Write a data set to `folder`, replacing an older one only once the new one is complete.

    Shards keep the order of the samples, so a training split should arrive shuffled: the plan mixes samples of
    neighbouring positions first.

    Args:
        splits: samples in order, by split; may be generators.
        shard_samples: samples per shard; the last one of a split may have fewer.
        split_class_names: own concepts of splits that are not made of `class_names`, such as OOD splits.

    Raises:
        DataError: a repeated class name or key, a label out of range, an empty split, a folder that holds something
            else, a full disk. Whatever was in `folder` before is untouched.
    """
    own_names = {split: tuple(names) for split, names in (split_class_names or {}).items()}
    check_class_names(class_names, f"data set {name!r}")
    for split, names in own_names.items():
        check_class_names(names, f"split {split!r}")
    with staged(folder) as staging:
        written = {}
        for split, samples in splits.items():
            labels = len(own_names.get(split, tuple(class_names)))
            pause = 0.1 if sys.stderr.isatty() else 10.0
            shown = tqdm(samples, f"packing {split}", unit=" images", disable=not progress, mininterval=pause)
            shards = _write_split(staging, split, _checked(shown, split, labels), shard_samples)
            written[split] = Split(shards, own_names.get(split))
        result = Manifest(
            name, version, tuple(class_names), tuple(templates), dict(trees), written, licence, dict(recipe)
        )
        result.save(staging)
    return result


def _write_split(staging: Path, split: str, samples: Iterator[Sample], shard_samples: int) -> tuple[Shard, ...]:
    (staging / split).mkdir()
    shards: list[Shard] = []
    parts: list[Index] = []
    while chunk := list(islice(samples, shard_samples)):
        path = f"{split}/{len(shards)}.tar"
        _write_shard(staging / path, chunk)
        shard, index = scan(staging, path)
        shards.append(shard)
        parts.append(index)
    if not shards:
        raise DataError(f"split {split!r} has no samples: give it some, or leave it out")
    Index.concatenate(parts).save(staging / INDEX / f"{split}.npz", Split(tuple(shards)).digest)
    return tuple(shards)


def _write_shard(path: Path, samples: Iterable[Sample]) -> None:
    with path.open("xb") as stream, TarWriter(stream, encoder=False, mtime=0) as tar:
        for sample in samples:
            members: dict[str, Any] = {"__key__": sample.key, sample.extension: sample.image}
            if sample.label is not None:
                members["cls"] = str(sample.label).encode()
            if sample.text is not None:
                members["txt"] = sample.text.encode()
            tar.write(members)


def _checked(samples: Iterable[Sample], split: str, labels: int) -> Iterator[Sample]:
    keys: set[str] = set()
    for sample in samples:
        if not sample.key or len(sample.key.encode()) > LONGEST_KEY or set(sample.key) & set("./\\\0"):
            raise DataError(
                f"key {sample.key!r} in split {split!r} can't be packed: use 1 to {LONGEST_KEY} bytes without dots or "
                "slashes"
            )
        if sample.key in keys:
            raise DataError(f"key {sample.key!r} occurs twice in split {split!r}: give each sample its own")
        if sample.label is not None and not 0 <= sample.label < labels:
            raise DataError(
                f"sample {sample.key!r} in split {split!r} has label {sample.label}, but there are {labels} class "
                "names: correct the label or the names"
            )
        keys.add(sample.key)
        yield sample


@contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """A sibling folder that takes the place of `folder` when the block ends, and vanishes when it fails."""
    if folder.exists() and not (folder / manifests.FILE).is_file() and (folder.is_file() or any(folder.iterdir())):
        raise DataError(f"{folder} exists and is not a packed data set: choose another data.folder, or empty it")
    staging = folder.parent / f".{folder.name}.staging-{os.getpid()}"
    try:
        staging.mkdir(parents=True)
        yield staging
        _replace(folder, staging)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise DataError(
            f"the disk is full while packing {folder}: free some space or choose another data.folder; what was there "
            "before is untouched and nothing else remains"
        ) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _replace(folder: Path, staging: Path) -> None:
    retired = staging.with_name(staging.name.replace(".staging-", ".retired-"))
    if folder.exists():
        folder.rename(retired)
    try:
        staging.rename(folder)
    except BaseException:
        if retired.exists():
            retired.rename(folder)
        raise
    shutil.rmtree(retired, ignore_errors=True)


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Let one process at a time write `folder`; others wait. The lock dies with its process, and clears away what
    a killed packer left behind."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder.parent / f".{folder.name}.lock", os.O_CREAT | os.O_RDWR, 0o666)
    except OSError as error:
        raise DataError(f"can't write beside {folder} ({error.strerror}): choose another data.folder") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for stale in folder.parent.glob(f".{folder.name}.staging-*"):
            shutil.rmtree(stale, ignore_errors=True)
        yield
    finally:
        os.close(lock)
