"""Loader throughput over a bare decode-and-transform loop in as many processes, on JPEGs of ImageNet's usual size."""

import io
import multiprocessing
import multiprocessing.pool
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image, ImageDraw

from configs.schema.data import ClassificationData
from datamodules.classification import ClassificationDataModule
from datamodules.images import Transform
from datamodules.loader import PlannedLoader
from datamodules.pack import Sample, pack
from experiments.bench.table import Row
from experiments.bench.targets import row

SIZE = (500, 375)
QUALITY = 90
NOISE = 25.0  # of 255; makes a file about 110 kB, as ImageNet's are on average
CROP = 224
BATCH = 32
ROUNDS = 9
REPEATS = 4  # of each picture in an epoch, so that its beginning and end weigh little
MOST_WORKERS = 8


def measure() -> list[Row]:
    """Time both loops in turn, whole epochs with workers already running. The median over the rounds of their ratio:
    other tenants of a machine slow both loops of a round alike, and rounds not."""
    workers = min(os.cpu_count() or 1, MOST_WORKERS)
    pictures = [picture(seed) for seed in range(max(256, BATCH * workers))] * REPEATS
    with tempfile.TemporaryDirectory() as scratch:
        loader = _loader(Path(scratch) / "pictures", pictures, workers)
        with multiprocessing.get_context("fork").Pool(workers, _share, (pictures,)) as pool:
            shares = [range(worker, len(pictures), workers) for worker in range(workers)]
            times = [(_seconds(loader), _bare_seconds(pool, shares)) for _ in range(1 + ROUNDS)][1:]
        del loader
    ours, bare = (len(pictures) / median(column) for column in zip(*times, strict=True))
    ratios = [other / own for own, other in times]
    detail = {
        "workers": float(workers),
        "loader_images_per_second": ours,
        "bare_images_per_second": bare,
        "rounds": float(ROUNDS),
        "lowest_ratio": min(ratios),
        "highest_ratio": max(ratios),
        "mean_kB": sum(map(len, pictures)) / len(pictures) / 1000,
    }
    return [row("loader / bare decode-and-transform", median(ratios), **detail)]


def picture(seed: int) -> bytes:
    """A JPEG of shapes and noise, 500 x 375 at quality 90."""
    random = np.random.default_rng(seed)
    image = Image.new("RGB", SIZE, tuple(random.integers(0, 256, 3).tolist()))
    draw = ImageDraw.Draw(image)
    for _ in range(12):
        (left, right), (top, bottom) = (sorted(random.integers(0, side, 2).tolist()) for side in SIZE)
        draw.ellipse((left, top, right, bottom), fill=tuple(random.integers(0, 256, 3).tolist()))
    noisy = np.asarray(image) + random.normal(0, NOISE, (SIZE[1], SIZE[0], 3))
    encoded = io.BytesIO()
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(encoded, "jpeg", quality=QUALITY)
    return encoded.getvalue()


def _loader(folder: Path, pictures: list[bytes], workers: int) -> PlannedLoader:
    samples: Iterator[Sample] = (Sample(f"{i:04d}", image, "jpg", label=0) for i, image in enumerate(pictures))
    pack(
        folder,
        {"train": samples},
        name="bench",
        version="1",
        class_names=["picture"],
        templates=["a {c}"],
        trees={},
        licence="none",
        recipe={},
        shard_samples=BATCH,
        progress=False,
    )
    config = ClassificationData(folder=str(folder), batch_size=BATCH, workers=workers, image_size=CROP)
    return ClassificationDataModule(config, seed=0).train_dataloader()


def _seconds(loader: PlannedLoader) -> float:
    start = time.perf_counter()
    for _ in loader:
        pass
    return time.perf_counter() - start


def _bare_seconds(pool: "multiprocessing.pool.Pool", shares: list[range]) -> float:
    start = time.perf_counter()
    pool.map(_decode, shares, chunksize=1)
    return time.perf_counter() - start


_pictures: list[bytes] = []


def _share(pictures: list[bytes]) -> None:
    _pictures[:] = pictures


def _decode(share: range) -> None:
    transform = Transform(CROP)
    for position in share:
        transform(_pictures[position], np.random.default_rng(position))
