"""A data set on disk: its manifest, and readers for its splits."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from configs.errors import DataError
from datamodules import manifest as manifests
from datamodules.manifest import Manifest, Shard
from datamodules.pack import INDEX
from datamodules.reader import SplitReader
from datamodules.sources import clip_benchmark


@dataclass(frozen=True)
class DataFolder:
    """`root` is where the shards' paths start, `indices` holds one {split}.npz per split."""

    root: Path
    manifest: Manifest
    indices: Path

    def reader(self, split: str) -> SplitReader:
        """Random access to a split; DataError where there is no such split."""
        return SplitReader(self.root, split, self.manifest.split(split), self.indices / f"{split}.npz")

    def verify(self) -> Iterator[tuple[str, Shard]]:
        """Read every shard and yield it with its split. DataError at the first one that is not what was packed."""
        self.manifest.check_files(self.root)
        for name, split in self.manifest.splits.items():
            for shard in split.shards:
                with (self.root / shard.path).open("rb") as stream:
                    digest = hashlib.file_digest(stream, "sha256").hexdigest()
                if digest != shard.sha256:
                    raise DataError(
                        f"shard {self.root / shard.path} is not what was packed (its sha256 differs): restore it, or "
                        "pack the data set again"
                    )
                yield name, shard


def open_folder(folder: Path, key: str = "data.folder") -> DataFolder:
    """A packed folder (it has manifest.json), or CLIP_benchmark's published layout, indexed on first use.

    Args:
        key: what in the configuration names it, for messages.

    Raises:
        DataError: it is neither, or a shard is missing or has another size than it should.
    """
    if (folder / manifests.FILE).is_file():
        opened = DataFolder(folder, Manifest.load(folder), folder / INDEX)
    elif clip_benchmark.is_layout(folder):
        manifest, cache = clip_benchmark.index(folder)
        opened = DataFolder(folder, manifest, cache / INDEX)
    elif folder.exists():
        raise DataError(f"{folder} has neither {manifests.FILE} nor classnames.txt: correct {key}")
    else:
        raise DataError(f"there is no data set at {folder}: correct {key}, or set data.pack to make one")
    opened.manifest.check_files(folder)
    return opened
