"""The manifest: what a data set consists of, down to the digest of each shard. One JSON file beside the shards."""

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from configs.errors import DataError

FILE = "manifest.json"
FORMAT = 1


@dataclass(frozen=True)
class Shard:
    """One tar file. `path` is relative to the data set's folder, `sha256` is over the whole file."""

    path: str
    samples: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Split:
    """Shards in order. `class_names` are a split's own concepts, where it is not made of the data set's classes."""

    shards: tuple[Shard, ...]
    class_names: tuple[str, ...] | None = None

    @property
    def samples(self) -> int:
        return sum(shard.samples for shard in self.shards)

    @property
    def bytes(self) -> int:
        return sum(shard.bytes for shard in self.shards)

    @property
    def digest(self) -> str:
        """sha256 over the shards' digests, in order."""
        return hashlib.sha256("".join(shard.sha256 for shard in self.shards).encode()).hexdigest()


@dataclass(frozen=True)
class Manifest:
    """A data set. `templates` hold `{c}` for the class name; `trees` are hierarchies over the classes, by name;
    `recipe` says how the data set was made.

    Raises:
        DataError: two shards with one path or one content.
    """

    name: str
    version: str
    class_names: tuple[str, ...]
    templates: tuple[str, ...]
    trees: dict[str, Any]
    splits: dict[str, Split]
    licence: str
    recipe: dict[str, Any] = field(default_factory=dict)
    format: int = FORMAT

    def __post_init__(self) -> None:
        seen: dict[str, str] = {}
        for shard in (shard for split in self.splits.values() for shard in split.shards):
            for identity in (shard.path, shard.sha256):
                if identity in seen:
                    raise DataError(
                        f"data set {self.name!r} holds the same shard twice, as {seen[identity]} and {shard.path}: "
                        "remove one of them, or pack the data set again"
                    )
                seen[identity] = shard.path

    @property
    def digest(self) -> str:
        """sha256 over the content: class names, templates, trees and the shards of every split. Names, licence and
        recipe do not count."""
        content = {
            "class_names": self.class_names,
            "templates": self.templates,
            "trees": self.trees,
            "splits": {name: (split.class_names, split.digest) for name, split in self.splits.items()},
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def split(self, name: str) -> Split:
        """The split of this name, or a DataError that lists the ones there are."""
        if name not in self.splits:
            raise DataError(f"data set {self.name!r} has no split {name!r}: it has {', '.join(sorted(self.splits))}")
        return self.splits[name]

    def samples(self, split: str) -> int:
        """Samples in a split."""
        return self.split(split).samples

    def save(self, folder: Path) -> None:
        """Write `manifest.json`, replacing an older one in one step. Same manifest, same bytes."""
        temporary = folder / f".{FILE}.{os.getpid()}"
        temporary.write_text(json.dumps(asdict(self), sort_keys=True, indent=1, ensure_ascii=False) + "\n", "utf-8")
        temporary.replace(folder / FILE)

    @classmethod
    def load(cls, folder: Path) -> "Manifest":
        """Read `manifest.json`. DataError where it is missing, not a manifest, or of another format."""
        path = folder / FILE
        if not path.is_file():
            raise DataError(f"no {FILE} in {folder}: pack the data set again, or correct data.folder")
        try:
            content = json.loads(path.read_text("utf-8"))
            if content.get("format") != FORMAT:
                raise DataError(f"{path} is of format {content.get('format')}, not {FORMAT}: pack the data set again")
            return cls(**{**content, **_typed(content)})
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise DataError(f"{path} is not a manifest ({error}): pack the data set again") from error

    def check_files(self, folder: Path) -> None:
        """Every shard is there and has its size. DataError names the first one that has not; contents are not read."""
        for shard in (shard for split in self.splits.values() for shard in split.shards):
            path = folder / shard.path
            if not path.is_file():
                raise DataError(f"shard {path} is missing: restore it, or pack the data set again")
            if (size := path.stat().st_size) != shard.bytes:
                raise DataError(
                    f"shard {path} has {size} bytes, its manifest says {shard.bytes}: it was truncated or changed; "
                    "restore it, or pack the data set again"
                )


def _typed(content: dict[str, Any]) -> dict[str, Any]:
    splits = {
        name: Split(
            shards=tuple(Shard(**shard) for shard in split["shards"]),
            class_names=None if split["class_names"] is None else tuple(split["class_names"]),
        )
        for name, split in content["splits"].items()
    }
    return {
        "splits": splits,
        "class_names": tuple(content["class_names"]),
        "templates": tuple(content["templates"]),
    }


def check_class_names(names: Sequence[str], where: str) -> None:
    """DataError where two classes share a name: text could not tell them apart."""
    first: dict[str, int] = {}
    for label, name in enumerate(names):
        if name in first:
            raise DataError(
                f"classes {first[name]} and {label} of {where} are both called {name!r}: give each its own name, for "
                "example in a file that data.class_names points to"
            )
        first[name] = label


def read_lines(path: Path) -> tuple[str, ...]:
    """The lines of a text file without their line ends; empty lines at the end do not count."""
    try:
        lines = path.read_text("utf-8").rstrip("\n").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} can't be read as text ({error}): correct the path or the file") from error
    return tuple(line.strip() for line in _without_blanks(lines, path))


def _without_blanks(lines: Iterable[str], path: Path) -> list[str]:
    kept = list(lines)
    for number, line in enumerate(kept, 1):
        if not line.strip():
            raise DataError(f"line {number} of {path} is empty: write one entry a line")
    return kept
