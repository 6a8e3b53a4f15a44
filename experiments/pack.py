"""The verb `pack`: build a data set, or check every byte of one."""

from pathlib import Path
from typing import TYPE_CHECKING

from configs.errors import ConfigError

if TYPE_CHECKING:
    from configs.compose import Composed
    from datamodules.manifest import Split


def pack(composed: "Composed", verify: bool) -> int:
    """Build the folder that data.folder names as data.pack says, replacing an older one once the new one is complete;
    or, with `verify`, read every shard of it and compare digests. Prints a line per split.

    Raises:
        ConfigError: there is no data.pack to build from.
        DataError: the source can't be read, the disk is full, or a shard is not what was packed.
    """
    data = composed.config.data
    folder = Path(data.folder)
    if verify:
        _verify(folder)
        return 0
    if data.pack is None:
        raise ConfigError("data.pack is not set, so there is nothing to pack: set data.pack.source")
    from datamodules.sources import build

    manifest = build(data.pack, folder)
    for name, split in sorted(manifest.splits.items()):
        print(_line(name, split))
    print(f"{folder}: {manifest.name} {manifest.version}, digest {manifest.digest[:16]}")
    return 0


def _verify(folder: Path) -> None:
    from tqdm import tqdm

    from datamodules.folder import open_folder

    opened = open_folder(folder)
    manifest = opened.manifest
    total = sum(len(split.shards) for split in manifest.splits.values())
    for _ in tqdm(opened.verify(), total=total, desc="verifying", unit=" shards"):
        pass
    for name, split in sorted(manifest.splits.items()):
        print(f"{_line(name, split)}  verified")


def _line(name: str, split: "Split") -> str:
    return f"{name:<16} {split.samples:>9} samples  {len(split.shards):>5} shards  {split.bytes / 2**20:>9.1f} MiB"
