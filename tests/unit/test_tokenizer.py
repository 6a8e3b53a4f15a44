"""Small vocabularies agree with CLIP's, and the cache with the tokenizer behind it."""

from pathlib import Path

import open_clip
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lightning_modules.backbones.load import MINI
from lightning_modules.backbones.tokenizer import MERGES_FILE, Tokenizer, truncate_merges

CLIP = open_clip.SimpleTokenizer(context_length=24)
SMALL = open_clip.get_tokenizer(f"local-dir:{MINI}", bpe_path=str(MINI / MERGES_FILE))
BYTES, MERGES = 2 * 256, 8192 - 2 * 256 - 2
CAPTIONS = st.lists(st.text("abcdefghijklmnopqrstuvwxyzéø0123456789 -'", max_size=30), min_size=1, max_size=6)


def test_the_shipped_merges_are_the_truncated_ones(tmp_path: Path) -> None:
    truncate_merges(tmp_path / "again.gz", 8192)
    assert (tmp_path / "again.gz").read_bytes() == (MINI / MERGES_FILE).read_bytes()


@given(CAPTIONS)
def test_a_small_vocabulary_says_the_same(texts: list[str]) -> None:
    """Every caption decodes to what CLIP's own tokens decode to, and every token exists."""
    for text in texts:
        tokens = SMALL.encode(text)
        assert all(token < BYTES + MERGES for token in tokens)
        assert SMALL.decode(tokens) == CLIP.decode(CLIP.encode(text))


@given(CAPTIONS)
def test_words_within_the_small_vocabulary_keep_their_tokens(texts: list[str]) -> None:
    for text in texts:
        tokens = CLIP.encode(text)
        if all(token < BYTES + MERGES for token in tokens):
            assert SMALL.encode(text) == tokens


def test_a_vocabulary_has_the_size_that_was_asked_for(tmp_path: Path) -> None:
    for size in (2 * 256 + 2, 600):
        truncate_merges(tmp_path / "merges.gz", size)
        assert open_clip.SimpleTokenizer(str(tmp_path / "merges.gz")).vocab_size == size
    for size in (2 * 256 + 1, 10**6):
        with pytest.raises(ValueError, match="vocab_size"):
            truncate_merges(tmp_path / "merges.gz", size)


@given(CAPTIONS, CAPTIONS)
def test_the_cache_changes_nothing(first: list[str], second: list[str]) -> None:
    cached = Tokenizer(SMALL, capacity=4)  # small enough to overflow
    for texts in (first, second, first):
        assert torch.equal(cached(texts), SMALL(texts))


def test_each_caption_is_tokenised_once() -> None:
    seen: list[str] = []

    def spy(texts: list[str]) -> Tensor:
        seen.extend(texts)
        return SMALL(texts)

    cached = Tokenizer(spy)
    cached(["a cat", "a dog", "a cat"])
    cached(["a dog", "a cow"])
    assert seen == ["a cat", "a dog", "a cow"]
