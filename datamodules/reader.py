"""Reading samples at random from the shards of a split. Every image and text is checked against its checksum."""

import os
import zlib
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from configs.errors import DataError
from datamodules.index import NO_LABEL, NO_MEMBER, Index
from datamodules.manifest import Split

OPEN_FILES = 64


@dataclass(frozen=True)
class Record:
    """One sample as stored. `label` is -1 and `text` None where it has none."""

    key: str
    image: bytes
    label: int
    text: str | None


class SplitReader:
    """Samples of one split by position. Cheap to send to a worker process: index and files are opened where they are
    used, and a forked process opens its own."""

    def __init__(self, root: Path, name: str, split: Split, index: Path) -> None:
        self.root = root
        self.name = name
        self.split = split
        self._index_path = index
        self._index: Index | None = None
        self._ends = np.cumsum([shard.samples for shard in split.shards])
        self._files: OrderedDict[int, int] = OrderedDict()
        self._process = os.getpid()

    def __len__(self) -> int:
        return self.split.samples

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_index": None, "_files": OrderedDict()}

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Close this process's files; the next read opens them again."""
        files, self._files = self._files, OrderedDict()
        if self._process == os.getpid():
            for file in files.values():
                os.close(file)

    @property
    def index(self) -> Index:
        """The index, loaded on first use. DataError where it is damaged or disagrees with the manifest."""
        if self._index is None:
            self._index = Index.load(self._index_path, self.split.digest)
            if len(self._index) != len(self):
                raise DataError(f"{self._index_path} counts other samples than its manifest: pack the data set again")
        return self._index

    def read(self, sample: int) -> Record:
        """The sample at this position. DataError, naming it, where its bytes are not those that were packed."""
        index = self.index
        image = self._member(sample, "image", index.image_offset, index.image_size, index.image_crc)
        text = None
        if index.text_size[sample] != NO_MEMBER:
            text = self._member(sample, "text", index.text_offset, index.text_size, index.text_crc).decode()
        return Record(index.key(sample), image, int(index.label[sample]), text)

    def where(self, sample: int) -> str:
        """A sample's key and shard, for messages."""
        return f"sample {self.index.key(sample)!r} in {self.root / self.split.shards[self._shard(sample)].path}"

    def check_labels(self, classes: int) -> None:
        """DataError where a sample has no label, or one that is not of `classes` classes."""
        label = self.index.label
        wrong = np.flatnonzero((label < 0) | (label >= classes))
        if not len(wrong):
            return
        sample = int(wrong[0])
        has = "no label" if label[sample] == NO_LABEL else f"label {label[sample]}"
        raise DataError(
            f"{self.where(sample)} has {has}, but there are {classes} class names: correct the labels or the names"
        )

    def check_texts(self) -> None:
        """DataError where a sample has no text."""
        wrong = np.flatnonzero(self.index.text_size == NO_MEMBER)
        if len(wrong):
            raise DataError(f"{self.where(int(wrong[0]))} has no text: add a .txt member to {len(wrong)} samples")

    def _shard(self, sample: int) -> int:
        return int(np.searchsorted(self._ends, sample, side="right"))

    def _member(self, sample: int, kind: str, offset: np.ndarray, size: np.ndarray, crc: np.ndarray) -> bytes:
        file = self._file(self._shard(sample))
        content = os.pread(file, int(size[sample]), int(offset[sample]))
        if len(content) != size[sample] or zlib.crc32(content) != crc[sample]:
            raise DataError(
                f"the {kind} of {self.where(sample)} is not what was packed (checksum differs): restore the shard, or "
                "pack the data set again"
            )
        return content

    def _file(self, shard: int) -> int:
        if self._process != os.getpid():
            self._files, self._process = OrderedDict(), os.getpid()
        if shard in self._files:
            self._files.move_to_end(shard)
            return self._files[shard]
        path = self.root / self.split.shards[shard].path
        try:
            self._files[shard] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise DataError(f"shard {path} can't be read ({error.strerror}): restore it") from error
        if len(self._files) > OPEN_FILES:
            os.close(self._files.popitem(last=False)[1])
        return self._files[shard]
