"""Pictures that are stored as floats come out as they went in, or not at all."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch

from configs.errors import DataError
from configs.schema.data import ClassificationData
from datamodules.classification import ClassificationDataModule
from datamodules.images import Transform
from datamodules.pack import Sample, pack


def npy(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, pixels)
    return buffer.getvalue()


def pixels(index: int, dtype: str = "float32", side: int = 6) -> np.ndarray:
    return np.random.default_rng(index).random((side, side, 3)).astype(dtype)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_packed_data_set_of_floats_is_read_back_exactly(tmp_path: Path, dtype: str, workers: int) -> None:
    samples = (Sample(f"{index:03d}", npy(pixels(index, dtype)), "npy", index % 3) for index in range(11))
    pack(
        tmp_path / "exact",
        {"test": samples},
        name="exact", version="1", class_names=("a", "b", "c"), templates=("{c}",), trees={}, licence="CC0", recipe={},
        shard_samples=4, progress=False,
    )  # fmt: skip
    config = ClassificationData(folder=str(tmp_path / "exact"), workers=workers, image_size=6)
    data = ClassificationDataModule(config, seed=0)
    batches = [data.on_after_batch_transfer(batch, 0) for batch in data.eval_loader("test", 4)]
    found = torch.cat([batch["image"][batch["valid"]] for batch in batches])
    expected = np.stack([pixels(index, dtype).astype(np.float32).transpose(2, 0, 1) for index in range(11)])
    assert found.dtype == torch.float32
    assert torch.equal(found, torch.from_numpy(expected))


def test_augmentation_moves_values_and_makes_none() -> None:
    stored = pixels(0, side=12)
    for seed in range(5):
        augmented = Transform()(npy(stored), np.random.default_rng(seed))
        assert augmented.dtype == stored.dtype
        assert np.isin(augmented, stored).all()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (npy(pixels(0))[:-5], "can't be decoded"),
        (npy(pixels(0) * 255), r"not in \[0, 1\]"),
        (npy(np.full((6, 6, 3), np.nan, np.float32)), r"not in \[0, 1\]"),
        (npy(np.zeros((6, 6, 3), np.uint8)), "of uint8, not floats"),
        (npy(np.zeros((6, 6), np.float32)), r"array \(6, 6\)"),
        (npy(pixels(0, side=7)), "never resized"),
    ],
)
def test_anything_else_is_refused(content: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Transform(6)(content)
