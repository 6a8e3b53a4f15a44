"""Small data sets for tests: pictures whose pixels tell which sample they are."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from configs.schema.data import ClassificationData
from datamodules.batches import EvalBatches, Labelling, Source, TrainBatches
from datamodules.folder import open_folder
from datamodules.images import Transform
from datamodules.manifest import Manifest
from datamodules.pack import Sample, pack
from datamodules.plan import EvalPlan, TrainPlan

CLASSES = ("ant", "bee", "cow")


def png(seed: int, side: int = 8) -> bytes:
    """A random picture."""
    encoded = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(encoded, "png")
    return encoded.getvalue()


def samples(split: str, count: int, side: int = 8) -> Iterator[Sample]:
    """`count` labelled pictures with captions."""
    for number in range(count):
        image = png(number + 1000 * sum(split.encode()), side)
        yield Sample(f"{split}-{number}", image, "png", number % len(CLASSES), f"{split} picture {number}")


def packed(folder: Path, counts: dict[str, int], shard_samples: int = 4, **changes: Any) -> Manifest:
    """A packed data set with so many samples per split."""
    settings: dict[str, Any] = {
        "name": "zoo",
        "version": "1",
        "class_names": CLASSES,
        "templates": ("a {c}",),
        "trees": {},
        "licence": "CC0",
        "recipe": {},
        "shard_samples": shard_samples,
        "progress": False,
    }
    splits = {split: samples(split, count) for split, count in counts.items()}
    return pack(folder, changes.pop("splits", splits), **(settings | changes))


def train_batches(folder: Path, plan: TrainPlan, **changes: Any) -> TrainBatches:
    """Batches of the split `train`, for one rank."""
    rank, world = changes.pop("rank", 0), changes.pop("world", 1)
    source = Source(open_folder(folder).reader("train"), Transform(), Labelling(), rank, world)
    return TrainBatches(source, plan, **({"augment": True, "tolerant": False} | changes))


def eval_batches(folder: Path, split: str, plan: EvalPlan, rank: int = 0) -> EvalBatches:
    """Batches of a split, for one rank of the plan."""
    return EvalBatches(Source(open_folder(folder).reader(split), Transform(), Labelling(), rank, plan.world), plan)


def train_plan(folder: Path, batch_size: int = 4, **changes: Any) -> TrainPlan:
    """The plan of the split `train`."""
    manifest = open_folder(folder).manifest
    shards = tuple(shard.samples for shard in manifest.split("train").shards)
    return TrainPlan(shards, manifest.digest, **({"seed": 5, "batch_size": batch_size, "window": 2} | changes))


def config(folder: Path, **changes: Any) -> ClassificationData:
    """A configuration with small batches and no workers."""
    return ClassificationData(**({"folder": str(folder), "batch_size": 4, "workers": 0} | changes))
