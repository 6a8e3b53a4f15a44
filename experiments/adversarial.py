"""Adversarial images as a data set of their own, which any model can be measured on: `evaluate ... data.folder=IT`."""

import io
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from lightning.pytorch.utilities import rank_zero_only
from PIL import Image

from configs.errors import DataError
from datamodules.classification import ClassificationDataModule
from datamodules.manifest import Manifest
from datamodules.pack import Sample, exclusive, pack
from datamodules.plan import EvalPlan
from lightning_modules.ledger import Array, Ledger
from lightning_modules.probes import Probe

SHARD_SAMPLES = 1000


@rank_zero_only
def save(folder: Path, origin: str, data: ClassificationDataModule, probe: Probe, ledger: Ledger) -> Manifest:
    """Packs what an attack made of all of a probe's samples to `folder`/NAME; rank 0 only, once all ranks are done.

    A sample that the model has wrong already is there as it was. Keys are positions in the split of the data set that
    was attacked; its labels, class names, templates and trees are kept.

    Args:
        origin: which run this is; a part of the new data set's name.

    Raises:
        DataError: the disk is full, or the folder holds something else; the ledger lacks a sample.
    """
    source = data.manifest
    target = folder / probe.name
    assert probe.attack is not None
    assert ledger.folder is not None, "images are kept in a folder"
    everyone = Ledger(ledger.folder, save=ledger.save)  # what other ranks settled, too
    places = EvalPlan(data.samples(probe.split), batch_size=1, subset=probe.samples).places.tolist()
    lacking = [place for place in places if place not in everyone.known]
    if lacking:
        raise DataError(
            f"{ledger.folder} lacks the adversarial images of {len(lacking)} of {len(places)} samples, sample "
            f"{lacking[0]} among them; remove the folder, and measure again"
        )
    with exclusive(target):
        return pack(
            target,
            {probe.split: _samples(everyone, places)},
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


def _samples(ledger: Ledger, places: Sequence[int]) -> Iterator[Sample]:
    for record, image in ledger.kept(places):
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
