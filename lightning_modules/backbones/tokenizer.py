"""Strings to token ids: open_clip's tokenizers, a cache in front of them, and small vocabularies for small models."""

import gzip
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from open_clip.tokenizer import default_bpe
from torch import Tensor

MERGES_FILE = "bpe.txt.gz"  # a model folder's own byte-pair merges
_BYTES_AND_SPECIAL = 2 * 256 + 2  # each byte, each byte that ends a word, start and end of text


class Tokenizer:
    """Token ids of captions, each distinct caption tokenised once.

    `encode` is an open_clip tokenizer: list of N strings -> int64 (N, context length).
    """

    def __init__(self, encode: Callable[[list[str]], Tensor], capacity: int = 100_000) -> None:
        self.encode = encode
        self.capacity = capacity
        self._rows: dict[str, Tensor] = {}

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Token ids, int64 (N, context length), on the CPU."""
        if len(self._rows) > self.capacity:
            self._rows.clear()
        unseen = [text for text in dict.fromkeys(texts) if text not in self._rows]
        if unseen:
            self._rows.update(zip(unseen, self.encode(unseen), strict=True))
        return torch.stack([self._rows[text] for text in texts])


def truncate_merges(target: Path, vocab_size: int, source: Path | None = None) -> None:
    """Writes the first merges of CLIP's byte-pair vocabulary, so that the vocabulary has `vocab_size` entries.

    Byte-pair merges are ordered by frequency, so that the first N of them are themselves a vocabulary; rarer words fall
    apart into more tokens. The same source gives the same bytes. Source: Sennrich et al. 2016, https://arxiv.org/abs/1508.07909.
    """
    merges = vocab_size - _BYTES_AND_SPECIAL
    with gzip.open(source or default_bpe(), "rt", encoding="utf-8") as file:
        lines = file.read().split("\n")[: merges + 1]  # the first line is the version
    if merges < 0 or len(lines) != merges + 1:
        raise ValueError(
            f"vocab_size must be at least {_BYTES_AND_SPECIAL} and within the source's merges, got {vocab_size}"
        )
    # No newline at the end: open_clip's reader would take an empty last line for one more merge.
    target.write_bytes(gzip.compress("\n".join(lines).encode(), mtime=0))
