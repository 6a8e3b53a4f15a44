"""What an attack has found of each sample, on disk as soon as it is known: a killed evaluation loses no work."""

from collections.abc import Iterable, Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import torch
from torch import Tensor

Array = np.ndarray[Any, np.dtype[Any]]
Precision = Literal["uint8", "fp16", "fp32"]

RECORD = np.dtype(
    [
        ("written", "?"),
        ("index", "<i8"),  # of the sample in its split
        ("label", "<i4"),
        ("clean", "<i4"),  # prediction on the clean image; -1 where an output is not a number
        ("worst", "<i4", (2,)),  # on what a full-budget attack made of it, and its further restarts; else as `clean`
        ("fallen", "?"),  # wrong at the leaves, on the clean image or on an adversarial one
        ("attacked", "?"),
        ("inherited", "?"),  # fell under the same attack at a smaller radius
        ("broken", "?"),  # an output was not a number
        ("stage", "<i2"),  # which attack of a sequence felled it; -1 for none
        ("zero_gradient", "<f4"),
    ]
)
"""A settled sample. All `Journal` dtypes begin with `written`: what a power cut leaves of a row that never reached the
disk is zeros."""

PICTURED = ("index", "label", "clean_prediction", "adversarial_prediction")
_PIXELS = {"uint8": "u1", "fp16": "<f2", "fp32": "<f4"}


class Journal:
    """An append-only file of equal rows: a .npy header, then one row after the other.

    A process may be killed at any byte: readers see whole rows only, and the next writer cuts off the rest.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: BinaryIO | None = None

    def append(self, rows: Array) -> None:
        """Writes rows (N,), in the operating system's hands on return. Rows of another dtype begin the file anew."""
        if self._file is None:
            self._file = self._open(rows.dtype)
        self._file.write(rows.tobytes())
        self._file.flush()

    def rows(self) -> Array | None:
        """All rows (N,), read-only and read from the disk where they are used; None where there are none."""
        layout = self._layout()
        if layout is None:
            return None
        dtype, offset = layout
        count = (self.path.stat().st_size - offset) // dtype.itemsize
        if not count:
            return None
        rows = np.memmap(self.path, dtype, "r", offset, (count,))
        missing = np.flatnonzero(~rows["written"])
        return rows[: missing[0]] if len(missing) else rows

    def close(self) -> None:
        """Closes the file; a later `append` opens it again."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _open(self, dtype: np.dtype[Any]) -> BinaryIO:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        layout, rows = self._layout(), self.rows()
        file: BinaryIO
        if layout is None or layout[0] != dtype:
            file = self.path.open("wb")
            file.write(_header(dtype))
            return file
        file = self.path.open("r+b")
        file.truncate(layout[1] + (0 if rows is None else len(rows)) * dtype.itemsize)
        file.seek(0, 2)
        return file

    def _layout(self) -> tuple[np.dtype[Any], int] | None:
        """The dtype of the rows and where they begin; None where there is no file, or only a part of its header."""
        if not self.path.exists():
            return None
        with self.path.open("rb") as file:
            try:
                np.lib.format.read_magic(file)
                _, _, dtype = np.lib.format.read_array_header_1_0(file)
            except ValueError:
                return None
            return dtype, file.tell()


def _header(dtype: np.dtype[Any]) -> bytes:
    buffer = BytesIO()
    settings = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (0,)}
    np.lib.format.write_array_header_1_0(buffer, settings)
    return buffer.getvalue()


class Ledger:
    """The settled samples of one attack on one split, by index: of all ranks, and of earlier attempts.

    Each rank appends to files of its own and reads those of all, so that an attempt may have another number of ranks
    than the one before. Without a folder everything is forgotten with the process.

    known  index -> RECORD.
    """

    def __init__(
        self, folder: Path | None = None, rank: int = 0, save: Precision | None = None, pictures: bool = False
    ) -> None:
        """
        Args:
            save: how adversarial images are kept; None keeps none. With it a sample without its image is not known.
            pictures: whether some clean and adversarial images are kept for the eye.
        """
        self.folder, self.save = folder, save
        self._records, self._images, self._shown = (
            None if folder is None else Journal(folder / f"{name}-{rank}.npy")
            for name in ("records", "images", "pictures")
        )
        self.pictures: dict[int, Any] = {int(row["index"]): row for row in self._saved("pictures")} if pictures else {}
        imaged = {int(row["index"]) for row in self._saved("images")} if save else None
        self.known: dict[int, Any] = {
            int(row["index"]): row
            for row in self._saved("records")
            if row.dtype == RECORD and (imaged is None or int(row["index"]) in imaged)
        }

    def settle(self, records: Array, pixels: Tensor) -> None:
        """Adds RECORDs (N,) and their images, float (N, C, H, W) in [0, 1]."""
        if self.save is not None and self._images is not None:
            self._images.append(_images(records["index"], stored(pixels, self.save)))
        if self._records is not None:
            self._records.append(records)
        self.known |= {int(record["index"]): record for record in records}

    def show(self, clean: Tensor, adversarial: Tensor, **columns: Array) -> None:
        """Adds pictures, uint8.

        Args:
            clean, adversarial: float (N, C, H, W) in [0, 1].
            columns: integers (N,) by PICTURED name.
        """
        pair = {"clean": stored(clean, "uint8"), "adversarial": stored(adversarial, "uint8")}
        images = [(name, "u1", pixels.shape[1:]) for name, pixels in pair.items()]
        rows = np.zeros(len(clean), [("written", "?"), *((name, "<i8") for name in PICTURED), *images])
        rows["written"] = True
        for name, column in (pair | columns).items():
            rows[name] = column
        if self._shown is not None:
            self._shown.append(rows)
        self.pictures |= {int(row["index"]): row for row in rows}

    def images(self, indices: Sequence[int]) -> Tensor:
        """The kept adversarial images of these samples of any rank, float32 (N, C, H, W) in [0, 1]."""
        places = {int(row["index"]): row for row in self._saved("images")}
        pixels = torch.from_numpy(np.stack([places[index]["pixels"] for index in indices]))
        return pixels.float() / (255 if self.save == "uint8" else 1)

    def kept(self, indices: Iterable[int]) -> Iterator[tuple[Any, Array]]:
        """RECORD and kept image, (C, H, W) as `stored`, of known samples."""
        places = {int(row["index"]): row for row in self._saved("images")}
        for index in indices:
            yield self.known[index], places[index]["pixels"]

    def close(self) -> None:
        """Closes this rank's files."""
        for journal in (self._records, self._images, self._shown):
            if journal is not None:
                journal.close()

    def discard_images(self) -> None:
        """Removes the kept images of all ranks."""
        for path in [] if self.folder is None else self.folder.glob("images-*.npy"):
            path.unlink()

    def _saved(self, name: str) -> Iterable[Any]:
        paths = [] if self.folder is None else sorted(self.folder.glob(f"{name}-*.npy"))
        return (row for path in paths if (rows := Journal(path).rows()) is not None for row in rows)


def stored(pixels: Tensor, precision: Precision) -> Array:
    """Pixels float (N, C, H, W) in [0, 1] as they are kept: rounded to 1/255, to float16, or exact float32."""
    pixels = pixels.detach().float().cpu()
    if precision == "uint8":
        return (pixels * 255).round().to(torch.uint8).numpy()
    return pixels.numpy().astype(_PIXELS[precision])


def _images(indices: Array, pixels: Array) -> Array:
    rows = np.zeros(len(indices), [("written", "?"), ("index", "<i8"), ("pixels", pixels.dtype, pixels.shape[1:])])
    rows["written"], rows["index"], rows["pixels"] = True, indices, pixels
    return rows
