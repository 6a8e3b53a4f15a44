"""Embeddings of a split, computed once per model and kept as a memory-mapped file."""

import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from configs.errors import DataError
from lightning_modules.backbones import Backbone
from lightning_modules.backbones.weights import weights_digest

Precision = Literal["float16", "float32"]
_FORMAT = 1
_EMBEDDINGS, _LABELS = "embeddings.npy", "labels.npy"


@dataclass(frozen=True, eq=False)
class Features:
    """Of M samples in the order of their split, read from the disk as they are asked for.

    embeddings  float16 or float32 (M, D), as the backbone gives them: not normalised.
    labels      int64 (M,).
    """

    embeddings: np.ndarray
    labels: Tensor

    @classmethod
    def open(cls, folder: Path) -> "Features":
        """What `FeatureExtraction` wrote. DataError where it is damaged."""
        try:
            embeddings = np.load(folder / _EMBEDDINGS, mmap_mode="r")
            labels = torch.from_numpy(np.load(folder / _LABELS))
        except (OSError, ValueError) as error:
            raise DataError(f"the embeddings in {folder} can't be read ({error}); remove the folder") from error
        if embeddings.ndim != 2 or len(embeddings) != len(labels):
            raise DataError(f"the embeddings in {folder} don't fit their labels; remove the folder")
        return cls(embeddings, labels)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def dimension(self) -> int:
        """D."""
        return int(self.embeddings.shape[1])

    def rows(self, places: Tensor) -> Tensor:
        """float32 (B, D) of the samples at these places, int64 (B,)."""
        return torch.from_numpy(self.embeddings[places.numpy()].astype(np.float32))

    def blocks(self, places: Tensor, size: int = 65536) -> Iterator[tuple[Tensor, Tensor]]:
        """The same with labels, in parts."""
        for part in torch.split(places, size):
            yield self.rows(part), self.labels[part]


def identity(backbone: Backbone, data_digest: str, split: str, image_size: int | None, precision: Precision) -> str:
    """What embeddings depend on, as a name for their folder: the image tower's weights, the data, the precision."""
    model = [backbone.architecture, backbone.preprocess, weights_digest(backbone.visual)]
    settings = [_FORMAT, data_digest, split, image_size, precision, *model]
    return hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()[:24]


class FeatureExtraction(LightningModule):
    """Embeds a split under `Trainer.test`, in float32 whatever the Trainer's precision, into a folder for
    `Features.open`, which appears whole or not at all.

    Each rank appends to a file of its own, so that neither ranks nor machines write to the same pages; rank 0 puts the
    rows in order at the end. What a killed attempt has appended is not embedded again, with any number of ranks.
    """

    def __init__(self, backbone: Backbone, folder: Path, samples: int, precision: Precision) -> None:
        """
        Args:
            folder: to be made; parts lie beside it meanwhile.
            samples: M, of the whole split, over all ranks.
        """
        super().__init__()
        self.backbone, self.folder, self.samples = backbone, folder, samples
        self.parts = folder.with_name(folder.name + ".parts")
        width = int(backbone.architecture["embed_dim"])
        self._record = np.dtype([("index", "<i8"), ("label", "<i8"), ("row", precision, (width,))])

    def on_test_start(self) -> None:
        """Reads what earlier attempts left behind, before any rank adds to it."""
        self.parts.mkdir(parents=True, exist_ok=True)
        self._seen = np.zeros(self.samples, bool)
        attempt = 0
        for path in self._files():
            self._seen[self._read(path)["index"]] = True
            attempt = max(attempt, 1 + int(path.name.split("-")[0]))
        self.trainer.strategy.barrier("features")
        self._file = (self.parts / f"{attempt}-{self.global_rank}.part").open("ab")

    @torch.no_grad()
    def test_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Embeds the samples of a batch that were not embedded yet."""
        index = batch["index"].cpu()
        wanted = batch["valid"].cpu() & ~torch.from_numpy(self._seen[index.numpy()])
        if not wanted.any():
            return
        with torch.autocast(self.device.type, enabled=False):
            rows = self.backbone.embed_image(batch["image"][wanted.to(self.device)].float())
        records = np.empty(len(rows), self._record)
        records["index"], records["label"] = index[wanted], batch["label"].cpu()[wanted]
        records["row"] = rows.cpu().numpy()
        self._file.write(records.tobytes())
        self._file.flush()

    def on_test_end(self) -> None:
        """Puts all ranks' rows in order."""
        self._file.close()
        self.trainer.strategy.barrier("features")
        if self.global_rank == 0:
            self._join()
        self.trainer.strategy.barrier("features")

    def _join(self) -> None:
        staging = self.folder.with_name(self.folder.name + ".staging")
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir()
        shape = (self.samples, *self._record["row"].shape)
        rows = np.lib.format.open_memmap(staging / _EMBEDDINGS, "w+", self._record["row"].base, shape)
        labels, times = np.zeros(self.samples, np.int64), np.zeros(self.samples, np.int64)
        for path in self._files():
            part = self._read(path)
            rows[part["index"]], labels[part["index"]] = part["row"], part["label"]
            np.add.at(times, part["index"], 1)
        if (times != 1).any():
            raise DataError(
                f"{int((times != 1).sum())} of {self.samples} samples were not embedded exactly once; remove "
                f"{self.parts}, check the data set with 'pack --verify', and start again"
            )
        rows.flush()
        np.save(staging / _LABELS, labels)
        staging.replace(self.folder)
        shutil.rmtree(self.parts, ignore_errors=True)

    def _files(self) -> list[Path]:
        return sorted(self.parts.glob("*.part"))

    def _read(self, path: Path) -> np.ndarray:
        """Whole records; a killed writer may have left a part of one."""
        count = path.stat().st_size // self._record.itemsize
        return np.memmap(path, self._record, "r", shape=(count,)) if count else np.empty(0, self._record)
