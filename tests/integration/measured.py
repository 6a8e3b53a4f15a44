"""Helpers of the tests that measure: a model that knows the test pictures, and experiments that measure it."""

import json
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from configs.schema.data import ClassificationData
from configs.schema.model import ModelConfig
from datamodules.classification import ClassificationDataModule
from experiments.cli import main
from lightning_modules.backbones import class_features, export, load_backbone

Rows = list[dict[str, Any]]


def fit(model: str, dataset: Path, folder: Path, steps: int = 60) -> str:
    """Fits the image tower to the test pictures by heart; returns the `model.name` of the result in `folder`."""
    data = ClassificationDataModule(ClassificationData(folder=str(dataset), workers=0), seed=0)
    (batch,) = (data.on_after_batch_transfer(batch, 0) for batch in data.eval_loader("test", 31))
    backbone = load_backbone(ModelConfig(model))
    features = class_features(backbone, data.class_names, data.templates)
    optimizer = torch.optim.Adam(backbone.visual.parameters(), lr=2e-3)
    for _ in range(steps):
        logits = backbone.logit_scale.detach() * F.normalize(backbone.embed_image(batch["image"]), dim=-1) @ features.T
        optimizer.zero_grad()
        F.cross_entropy(logits, batch["label"]).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    export(backbone, folder)
    return f"local-dir:{folder}"


def experiment(path: Path, model: str, dataset: Path, evaluation: dict[str, Any], **data: Any) -> Path:
    """Writes an experiment that measures the model; runs go beside it."""
    content = {
        "output": str(path.parent / "outputs"),
        "model": {"name": model},
        "data": {"kind": "classification", "folder": str(dataset), "batch_size": 8, "workers": 0} | data,
        "module": {"kind": "robust_finetuning", "objective": {"kind": "tecoa"}},
        "trainer": {"accelerator": "cpu", "threads": 1},
        "logging": {"wandb": "disabled"},
        "evaluation": {"batch_size": 8, "slots": 4, "checks": False} | evaluation,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))  # JSON is YAML
    return path


def evaluate(experiment: Path, *overrides: str) -> Rows:
    """The rows that `evaluate` wrote."""
    assert main(["evaluate", str(experiment), *overrides]) == 0
    return read(experiment)


def read(experiment: Path) -> Rows:
    """The rows of the only run beside an experiment."""
    (results,) = (experiment.parent / "outputs").glob("*/*/results.jsonl")
    return [json.loads(line) for line in results.read_text().splitlines()]


def figures(rows: Rows) -> list[dict[str, Any]]:
    """Rows without what differs from one machine or minute to the next."""
    kept = ("metric", "value", "n", "split", "level", "tree", "attack", "attack_name", "score", "stage", "checks")
    return [{name: row[name] for name in kept} for row in rows]
