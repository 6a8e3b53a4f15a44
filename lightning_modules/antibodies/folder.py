"""A bank as a run keeps it: texts with their verdicts, features, and a card."""

import math
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from lightning_modules.antibodies.antibody import to_json
from lightning_modules.antibodies.bank import Bank
from lightning_modules.antibodies.bank_file import write_lines
from lightning_modules.antibodies.json_lines import json_line
from lightning_modules.antibodies.report import report
from lightning_modules.antibodies.selection import Selection

BANK, FEATURES, CARD = "bank.jsonl", "features.safetensors", "card.md"


def write_folder(folder: Path, bank: Bank, features: Tensor, selection: Selection) -> None:
    """Writes bank.jsonl (`read_bank` reads it, too), features.safetensors and card.md.

    features.safetensors holds `features` float32 (N, D), `owners` int64 (N,) and `kept` uint8 (N,), in the order of the
    lines, dropped antibodies among them.

    Args:
        features: (N, D), of all antibodies.
    """
    folder.mkdir(parents=True, exist_ok=True)
    outcomes = zip(selection.own.tolist(), selection.nearest.tolist(), selection.reasons, strict=True)
    lines = [
        json_line(to_json(each) | _outcome(own, nearest, reason))
        for each, (own, nearest, reason) in zip(bank.antibodies, outcomes, strict=True)
    ]
    write_lines(folder / BANK, "".join(lines))
    tensors = {
        "features": features.detach().float().cpu().contiguous(),
        "owners": torch.tensor(bank.owners),
        "kept": selection.kept.to(torch.uint8),
    }
    save_file(tensors, folder / FEATURES, {"digest": bank.digest})
    write_lines(folder / CARD, _card(bank, selection))


def _outcome(own: float, nearest: float, reason: str | None) -> dict[str, object]:
    return {
        "own": None if math.isnan(own) else round(own, 5),
        "nearest": round(nearest, 5),
        "kept": reason is None,
        "reason": reason,
    }


def _card(bank: Bank, selection: Selection) -> str:
    sources = sorted({", ".join(filter(None, (each.generator, each.model, each.date))) for each in bank.antibodies})
    return (
        f"# Bank of semantic antibodies: {bank.name}\n\n"
        f"{len(bank):,} texts of what {len(bank.class_names):,} classes are not, {int(selection.kept.sum()):,} of "
        f"which are used.\n\n"
        f"- Made by: {'; '.join(sources)}\n"
        f"- Classes without an antibody: {len(bank.bare):,}\n"
        f"- sha256: {bank.digest}\n\n"
        f"```\n{report(bank, selection)}\n```\n"
    )
