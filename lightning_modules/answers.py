"""What a model answered about samples, on disk as soon as it is known: a killed measurement loses a batch at most."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_modules.ledger import Array, Journal

FORMAT = 1
"""Raised with what is put down, or what an attack does: answers of another format are asked again."""

Columns = Mapping[str, Tensor]
"""Tensors (B, ...) by name: a row for each of B samples."""


class Answers:
    """Columns about samples, by the samples' index: of all ranks, and of earlier attempts.

    Each rank appends to a file of its own and reads those of all, so that an attempt may have another number of ranks
    than the one before. Without a folder everything is forgotten.
    """

    def __init__(self, folder: Path | None, rank: int = 0) -> None:
        """
        Args:
            folder: see `within`.
        """
        self._journal = None if folder is None else Journal(folder / f"answers-{rank}.npy")
        saved = [] if folder is None else list(_saved(folder))
        self._rows: Array | None = None
        if saved:
            rows = np.concatenate(saved)
            self._rows = rows[np.argsort(rows["index"], kind="stable")]

    def known(self, index: Tensor) -> Tensor:
        """bool (B,), on the index's device: the samples that an earlier attempt has answers about."""
        if self._rows is None:
            return torch.zeros_like(index, dtype=torch.bool)
        wanted = index.cpu().numpy()
        return torch.from_numpy(self._rows["index"][self._places(self._rows, wanted)] == wanted).to(index.device)

    def of(self, index: Tensor, ask: Callable[[Tensor], Columns]) -> Columns:
        """Columns (B, ...) of samples int64 (B,): what is known, and what is asked now, which is put down.

        Args:
            index: -1 for padding, which is asked about and not put down.
            ask: places int64 (R,) among the B samples, R > 0 -> columns (R, ...) about these.
        """
        known = self.known(index)
        old, new = (rows.nonzero().squeeze(1) for rows in (known, ~known))
        found = [self._recall(index[old])] if len(old) else []
        if len(new):
            found.append(ask(new))
            self._put(index[new], found[-1])
        order = torch.cat([old, new]).argsort()
        return {name: torch.cat([part[name] for part in found])[order] for name in found[0]}

    def close(self) -> None:
        """Closes this rank's file."""
        if self._journal is not None:
            self._journal.close()

    def _recall(self, index: Tensor) -> Columns:
        assert self._rows is not None, "nothing is known without rows"
        rows = self._rows[self._places(self._rows, index.cpu().numpy())]
        names = [name for name in rows.dtype.names or () if name not in ("written", "index")]
        return {name: torch.from_numpy(rows[name].copy()).to(index.device) for name in names}

    def _put(self, index: Tensor, columns: Columns) -> None:
        if self._journal is None:
            return
        kept = index >= 0
        arrays = {name: column[kept].detach().cpu().numpy() for name, column in {"index": index, **columns}.items()}
        layout = [(name, array.dtype, array.shape[1:]) for name, array in arrays.items()]
        rows = np.zeros(len(arrays["index"]), [("written", "?"), *layout])
        for name, array in ({"written": True} | arrays).items():
            rows[name] = array
        self._journal.append(rows)

    @staticmethod
    def _places(rows: Array, wanted: Array) -> Array:
        return np.searchsorted(rows["index"], wanted).clip(max=len(rows) - 1)


def within(folder: Path | None, name: str, identity: Sequence[Any]) -> Path | None:
    """A folder for answers within another; None within none.

    Args:
        folder: stands for model, data and templates.
        identity: all else that the answers depend on, as JSON takes it. The order of keys counts: columns follow it.
    """
    if folder is None:
        return None
    digest = hashlib.sha256(json.dumps([FORMAT, *identity]).encode()).hexdigest()[:8]
    return folder / f"{name}-{digest}"


def _saved(folder: Path) -> Iterator[Array]:
    for path in sorted(folder.glob("answers-*.npy")):
        rows = Journal(path).rows()
        if rows is not None:
            yield rows
