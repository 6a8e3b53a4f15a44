"""The index of a split: where each sample's bytes lie in its shard, and their checksums, for reading at random."""

import hashlib
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import BinaryIO

import numpy as np

from configs.errors import DataError
from datamodules.manifest import Shard

IMAGES = ("jpg", "jpeg", "png", "webp", "npy")
BLOCK = 512  # tar's unit
NO_LABEL = -1
NO_MEMBER = -1


@dataclass(frozen=True)
class Index:
    """Samples in the order of the shards. A text that a sample lacks has size -1.

    keys bytes (N,); label int64 (N,), -1 without one; *_offset, *_size int64 (N,), bytes; *_crc uint32 (N,), CRC-32.
    """

    keys: np.ndarray
    label: np.ndarray
    image_offset: np.ndarray
    image_size: np.ndarray
    image_crc: np.ndarray
    text_offset: np.ndarray
    text_size: np.ndarray
    text_crc: np.ndarray

    def __len__(self) -> int:
        return len(self.label)

    def key(self, sample: int) -> str:
        return bytes(self.keys[sample]).decode()

    @classmethod
    def concatenate(cls, parts: Sequence["Index"]) -> "Index":
        """The index of several shards, in order."""
        columns = {f.name: np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(cls)}
        return cls(**columns)

    def save(self, path: Path, digest: str) -> None:
        """Write an .npz that belongs to the split with this digest."""
        path.parent.mkdir(parents=True, exist_ok=True)
        columns = {f.name: getattr(self, f.name) for f in fields(self)}
        np.savez(path, digest=np.array(digest), **columns)

    @classmethod
    def load(cls, path: Path, digest: str) -> "Index":
        """DataError where the file is missing, damaged, or belongs to other shards."""
        try:
            with np.load(path, allow_pickle=False) as columns:
                if str(columns["digest"]) != digest:
                    raise DataError(f"{path} belongs to other shards than its manifest's: pack the data set again")
                return cls(**{f.name: columns[f.name] for f in fields(cls)})
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise DataError(f"the index {path} can't be read ({error}): pack the data set again") from error


@dataclass
class _Row:
    key: str
    label: int = NO_LABEL
    image: tuple[int, int, int] | None = None
    text: tuple[int, int, int] = (0, NO_MEMBER, 0)


def scan(root: Path, path: str) -> tuple[Shard, Index]:
    """Read one shard from end to end.

    Raises:
        DataError: the file is missing; it ends early, also where a whole member ends; a sample occurs twice, has no
        image, or a label that is not a number.
    """
    file = root / path
    try:
        with file.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
            rows = list(_rows(stream, file))
    except FileNotFoundError as error:
        raise DataError(f"shard {file} is missing: restore it") from error
    except (tarfile.TarError, EOFError) as error:
        raise DataError(f"shard {file} is truncated or damaged ({error}): restore it") from error
    if not rows:
        raise DataError(f"shard {file} holds no samples: remove it, or restore it")
    shard = Shard(path=path, samples=len(rows), bytes=file.stat().st_size, sha256=digest)
    return shard, _columns(rows)


def _rows(stream: BinaryIO, file: Path) -> Iterator[_Row]:
    stream.seek(0)
    seen: set[str] = set()
    row: _Row | None = None
    with tarfile.open(fileobj=stream, mode="r:") as tar:
        for member in tar:
            if not member.isfile():
                continue
            key, _, extension = _split_name(member.name)
            if row is None or key != row.key:
                yield from _finished(row, file)
                if key in seen:
                    raise DataError(f"sample {key!r} occurs twice in {file}: keys must be unique, one sample in a row")
                seen.add(key)
                row = _Row(key)
            _add(row, extension, member, stream, file)
        yield from _finished(row, file)
        _check_end(stream, tar.offset, file)


def _split_name(name: str) -> tuple[str, str, str]:
    folder, slash, base = name.removeprefix("./").rpartition("/")
    stem, dot, extension = base.partition(".")
    return folder + slash + stem, dot, extension.lower()


def _finished(row: _Row | None, file: Path) -> Iterator[_Row]:
    if row is None:
        return
    if row.image is None:
        raise DataError(
            f"sample {row.key!r} in {file} has no image ({', '.join(IMAGES)}): add it, or remove the sample"
        )
    yield row


def _add(row: _Row, extension: str, member: tarfile.TarInfo, stream: BinaryIO, file: Path) -> None:
    if extension not in (*IMAGES, "cls", "txt"):
        return
    stream.seek(member.offset_data)
    content = stream.read(member.size)
    if len(content) != member.size:
        raise DataError(f"shard {file} is truncated within sample {row.key!r}: restore it")
    place = (member.offset_data, member.size, zlib.crc32(content))
    if extension == "cls":
        row.label = _label(content, row.key, file)
    elif extension == "txt":
        row.text = place
    elif row.image is not None:
        raise DataError(f"sample {row.key!r} in {file} has two images: keep one")
    else:
        row.image = place


def _label(content: bytes, key: str, file: Path) -> int:
    try:
        return int(content)
    except ValueError as error:
        raise DataError(f"the label of sample {key!r} in {file} is not a whole number: {content[:20]!r}") from error


def _check_end(stream: BinaryIO, offset: int, file: Path) -> None:
    """An archive ends with two blocks of zeros. Without them it was cut, be it where a whole member ends."""
    stream.seek(offset)
    if stream.read(2 * BLOCK) != bytes(2 * BLOCK):
        raise DataError(f"shard {file} is truncated or damaged at byte {offset} (no end of archive): restore it")


def _columns(rows: list[_Row]) -> Index:
    images = np.array([row.image for row in rows], np.int64)
    texts = np.array([row.text for row in rows], np.int64)
    return Index(
        keys=np.array([row.key.encode() for row in rows], np.bytes_),
        label=np.array([row.label for row in rows], np.int64),
        image_offset=images[:, 0],
        image_size=images[:, 1],
        image_crc=images[:, 2].astype(np.uint32),
        text_offset=texts[:, 0],
        text_size=texts[:, 1],
        text_crc=texts[:, 2].astype(np.uint32),
    )
