"""Adversarial images as a data set of their own, which any model can be measured on: `evaluate ... data.folder=IT`."""

import io
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
from lightning.pytorch.utilities import rank_zero_only
from PIL import Image

from datamodules.classification import ClassificationDataModule
from datamodules.manifest import Manifest
from datamodules.pack import Sample, exclusive, pack
from lightning_modules.ledger import Array, Ledger
from lightning_modules.probes import Probe

SHARD_SAMPLES = 1000


@rank_zero_only
def save(folder: Path, origin: str, data: ClassificationDataModule, probe: Probe, ledger: Ledger) -> Manifest:
    """Packs what an attack made of its samples to `folder`/NAME, and removes the ledger's copy; rank 0 only.

    A sample that the model has wrong already is there as it was. Keys are positions in the split of the data set that
    was attacked; its labels, class names, templates and trees are kept.

    Args:
        origin: which run this is; a part of the new data set's name.

    Raises:
        DataError: the disk is full, or the folder holds something else.
    """
    source = data.manifest
    target = folder / probe.name
    assert probe.attack is not None
    with exclusive(target):
        manifest = pack(
            target,
            {probe.split: _samples(ledger)},
            name=f"{source.name}: {probe.name} on {origin} {folder.name}",
            version=source.version,
            class_names=data.class_names,
            templates=data.templates,
            trees=source.trees,
            licence=source.licence,
            recipe={"source": source.digest, "attack": asdict(probe.attack), "stored": ledger.save},
            shard_samples=SHARD_SAMPLES,
            progress=False,
        )
    ledger.discard_images()
    return manifest


def _samples(ledger: Ledger) -> Iterator[Sample]:
    for record, image in ledger.kept():
        key, pixels, label = f"{int(record['index']):09d}", image.transpose(1, 2, 0), int(record["label"])
        rounded = image.dtype == np.uint8
        yield Sample(key, _png(pixels), "png", label) if rounded else Sample(key, _npy(pixels), "npy", label)


def _png(image: Array) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(buffer, "PNG")
    return buffer.getvalue()


def _npy(image: Array) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(image), allow_pickle=False)
    return buffer.getvalue()
