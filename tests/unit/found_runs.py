"""Run folders and result rows made up for the report: figures are random, so that no two of them are alike."""

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

PGD = {"kind": "pgd", "norm": "linf", "eps_255": 4.0, "step_255": 1.0, "steps": 20, "restarts": 1, "loss": "ce"}
APGD = {
    "kind": "auto_attack", "version": "custom", "attacks": ["apgd-ce", "apgd-t"], "norm": "linf", "eps_255": 4.0,
    "steps": 20, "targets": 3,
}  # fmt: skip
LEVELS = [(None, 0), ("unicode", 1), ("unicode", 2), ("wordnet", 1), ("wordnet", 2)]
DETECTION = ("auroc", "aupr_in", "aupr_out", "fpr95_id_pos", "fpr95_ood_pos")
SPLITS = ("near_seen", "near_unseen", "near", "far")


def row(value: float = 0.5, n: int = 200, **fields: Any) -> dict[str, Any]:
    """One line of results.jsonl; leaf accuracy on clean pictures before fine-tuning, unless `fields` say otherwise."""
    return {
        "metric": "accuracy", "value": value, "n": n, "dataset": "openmoji-open-world", "split": "test", "level": 0,
        "tree": None, "attack": None, "attack_name": None, "score": None, "stage": "before", "seed": 0, "checks": {},
        "config_hash": "c0ffee12", "git_sha": "0123abcd", "manifest_digest": "feedbeef",
        "versions": {"torch": "2.15.0", "python": "3.11.9"}, "seconds": 12.5, "device": "a processor, 2 threads",
        **fields,
    }  # fmt: skip


def rows(stages: Sequence[str] = ("before", "after"), seed: int = 0) -> list[dict[str, Any]]:
    """A whole evaluation of each stage: clean, two attacks, the sweep, open world."""
    random = np.random.default_rng(seed)
    return [found for number, stage in enumerate(stages) for found in _stage(random, stage, number)]


def _stage(random: np.random.Generator, stage: str, number: int) -> Iterator[dict[str, Any]]:
    fell, stood = (0.03, 0.9) if number == 0 else (0.35, 0.82)
    for tree, level in LEVELS:
        at = {"stage": stage, "tree": tree, "level": level}
        yield row(_near(random, stood, level), 1600, **at)
        yield row(
            _near(random, fell, level), 512, attack=PGD, attack_name="pgd20", checks={"zero_gradient": 0.01}, **at
        )
        yield row(_near(random, fell - 0.02, level), 512, attack=APGD, attack_name="apgd", **at)
    for eps in (0.0, 1.0, 2.0, 4.0, 8.0):
        attack = {**PGD, "steps": 10, "eps_255": eps} if eps else None
        share = stood * np.exp(-((eps / (2 if number == 0 else 5)) ** 2))
        yield row(float(share), 512, stage=stage, attack=attack, attack_name="sweep")
    for place, split in enumerate(SPLITS):
        for metric in DETECTION:
            group = split.partition("_")[0]
            at = {"metric": metric, "split": split, "stage": stage, "score": "mcm", "level": None, "group": group}
            yield row(float(0.7 - 0.05 * number + 0.05 * place + 0.02 * random.random()), 700 + place, **at)


def _near(random: np.random.Generator, share: float, level: int) -> float:
    return float(np.clip(share + 0.06 * level + 0.01 * random.random(), 0, 1))


def write(folder: Path, found: Sequence[dict[str, Any]], pictures: int = 8, size: int = 32) -> Path:
    """A run's folder with rows, and all the files that a finished run has."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.jsonl").write_text("".join(json.dumps(one) + "\n" for one in found))
    (folder / "config.yaml").write_text("name: quickstart\nattack:\n  kind: pgd  # <script>\n")
    status = {"state": "finished", "step": 100, "steps": 100, "message": "", "started": "then", "updated": "now"}
    (folder / "status.json").write_text(json.dumps(status))
    _write_curves(folder / "metrics.csv")
    for stage in dict.fromkeys(one["stage"] for one in found):
        _write_evidence(folder / f"evidence-{stage}.npz", stage, pictures, size)
    return folder


def _write_curves(path: Path, steps: int = 100) -> None:
    random = np.random.default_rng(1)
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["step", "train/loss", "train/robust_accuracy", "train/clean_accuracy", "train/zero_gradient"])
        for step in range(1, steps + 1):
            rising = 1 - np.exp(-step / 30)
            noise = 0.05 * random.standard_normal(3)
            zero = 0.01 if step % 10 == 0 else ""
            table.writerow([step, 4 - 2 * rising + noise[0], 0.4 * rising + noise[1], 0.85 + noise[2] / 2, zero])


def _write_evidence(path: Path, stage: str, count: int, size: int) -> None:
    random = np.random.default_rng(2)
    ramp = np.linspace(40, 215, size)
    clean = np.stack([np.add.outer(ramp * a, ramp * (1 - a)) for a in random.random((count, 3)).ravel()])
    clean = clean.reshape(count, 3, size, size).round().astype(np.uint8)
    moved = random.integers(-4, 5, clean.shape)
    moved[-1] = 0
    label = np.arange(count) % 5
    scores = {f"scores/mcm/{split}": random.normal(centre, 0.08, 400) for split, centre in
              (("test", 0.6), ("near_seen", 0.5), ("near_unseen", 0.42), ("far", 0.35))}  # fmt: skip
    np.savez_compressed(
        path,
        **scores,
        **{
            "pictures/clean": clean,
            "pictures/adversarial": (clean + moved).astype(np.uint8),
            "pictures/label": label,
            "pictures/clean_prediction": np.where(np.arange(count) == count - 1, (label + 1) % 5, label),
            "pictures/adversarial_prediction": label if stage == "after" else (label + 1) % 5,
            "class_names": np.array(["dog", "fox", "hot air balloon <i>", "a very long name of something", "saw"]),
        },
    )
