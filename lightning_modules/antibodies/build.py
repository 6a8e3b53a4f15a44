"""A configuration's bank."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from configs.errors import ConfigError, DataError
from configs.schema.antibodies import BankConfig, FileBank, LexiconBank, LLMBank, MinedBank, RandomBank
from lightning_modules.antibodies.antibody import Antibody
from lightning_modules.antibodies.bank import Bank
from lightning_modules.antibodies.bank_file import read_bank
from lightning_modules.antibodies.lexicon import lexicon
from lightning_modules.antibodies.mining import mined
from lightning_modules.antibodies.noise import noise, uniform
from lightning_modules.antibodies.written import written
from lightning_modules.hierarchy.outline import some

CHUNK = 2048  # captions that are encoded at a time


def build(source: BankConfig, class_names: Sequence[str], name: str) -> Bank:
    """The bank `name` over the data set's classes, before any selection.

    Raises:
        DataError: a file that can't be read, is malformed or for other classes; no antibody at all.
        ConfigError: a bank of a language model that was not written yet.
    """
    bank = Bank(name, tuple(class_names), tuple(_antibodies(source, class_names, name)), source.synsets)
    if not bank.antibodies:
        raise DataError(
            f"the bank {name!r} has no antibody for any class; give antibodies.{name}.synsets, or raise counts"
        )
    return bank


def points(source: BankConfig, bank: Bank, encode: Callable[[Sequence[str]], Tensor], dimensions: int) -> Tensor:
    """Where the antibodies lie, float (N, dimensions): what `encode` makes of their captions, some at a time, or noise.

    Args:
        encode: captions -> (n, dimensions), as for class names, in the same templates.
    """
    if isinstance(source, RandomBank):
        return uniform(len(bank), dimensions, source.seed)
    starts = range(0, len(bank), CHUNK)
    return torch.cat([encode(bank.captions[start : start + CHUNK]) for start in starts])


def _antibodies(source: BankConfig, class_names: Sequence[str], name: str) -> Sequence[Antibody]:
    match source:
        case LexiconBank():
            return lexicon(source, class_names)
        case MinedBank():
            return mined(source, class_names)
        case RandomBank():
            return noise(source, class_names)
        case FileBank():
            return written(source, class_names, name)
        case LLMBank():
            return _of_llm(source, class_names, name)


def _of_llm(source: LLMBank, class_names: Sequence[str], name: str) -> Sequence[Antibody]:
    path = Path(source.file)
    if not path.is_file():
        raise ConfigError(
            f"antibodies.{name}.file={path} does not exist yet; write it with `python -m experiments "
            "bank`, and review it"
        )
    bank = read_bank(path, class_names, name)
    if bank.bare:
        raise DataError(
            f"the bank {path} has no antibody for {some(bank.bare)}; move it away and have it written again"
        )
    return bank.antibodies
