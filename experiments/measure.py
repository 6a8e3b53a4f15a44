"""Measuring a model for a run: the probes that a configuration asks for, under Lightning, into the run's files."""

import json
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import rank_zero_only

from configs.errors import ConfigError
from configs.schema import ExperimentConfig
from configs.schema.attack import PGD, Attack, NoAttack
from configs.schema.evaluation import EvaluationConfig
from datamodules.base import PlannedDataModule
from datamodules.classification import ClassificationDataModule
from datamodules.loader import PlannedLoader
from datamodules.open_world import OpenWorldDataModule
from experiments import provenance, results
from experiments.atomic import replacing
from experiments.runs import Run
from experiments.trainer import build_tester
from lightning_modules.backbones import Backbone
from lightning_modules.evaluation import Evaluation
from lightning_modules.hierarchy import Tree
from lightning_modules.probes import Probe

SWEEP_STEPS = 10  # of PGD, at each point of the accuracy-by-eps curve


class ProbeData(LightningDataModule):
    """One loader a probe, on whichever rank the tester puts it."""

    def __init__(self, data: ClassificationDataModule, probes: list[Probe], batch_size: int) -> None:
        super().__init__()
        self.data, self.probes, self.batch_size = data, probes, batch_size

    def test_dataloader(self) -> list[PlannedLoader]:
        """In the order of the probes."""
        self.data.trainer = self.trainer
        return [self.data.eval_loader(probe.split, self.batch_size, probe.samples) for probe in self.probes]

    def on_after_batch_transfer(self, batch: dict[str, Any], dataloader_idx: int) -> dict[str, Any]:
        """As the data set's own datamodule."""
        return self.data.on_after_batch_transfer(batch, dataloader_idx)


def measure(
    run: Run, config: ExperimentConfig, backbone: Backbone, data: PlannedDataModule, stage: str
) -> list[results.Row]:
    """Runs every probe of `config.evaluation`, adds rows to results.jsonl and writes evidence-STAGE.npz.

    A stage that was measured in full with the same settings is read back, not measured again.

    Args:
        stage: what the rows are called: `before` or `after` fine-tuning.

    Raises:
        ConfigError: the data has no labels to compare with, or the attack has no radius.
        DataError: a sample can't be read, or was not seen exactly once.
    """
    evidence = run.folder / f"evidence-{stage}.npz"
    settings = json.dumps([asdict(config.evaluation), str(config.data.folder)], sort_keys=True)
    if _settings(evidence) == settings:
        return [row for row in results.read(run.results) if row["stage"] == stage]
    if not isinstance(data, ClassificationDataModule):
        raise ConfigError(
            f"data.kind={config.data.kind} has no labels to measure with; use classification or open_world"
        )
    began = time.perf_counter()
    data.prepare_data()
    planned = probes(config.evaluation, data)
    evaluation = Evaluation(
        backbone.channels_last(),
        planned,
        class_names=data.class_names,
        templates=data.templates,
        trees=[Tree.from_dict(name, tree) for name, tree in data.manifest.trees.items()],
        scores=_temperatures(config.evaluation, backbone),
        seed=config.seed,
        pictures=config.evaluation.pictures,
    )
    build_tester(config, f"measuring {stage}").test(
        evaluation, datamodule=ProbeData(data, planned, config.evaluation.batch_size), verbose=False
    )
    common = {"dataset": data.manifest.name, "stage": stage, "seed": config.seed}
    rows = [{**row, **common} for row in evaluation.rows()]
    source = provenance.collect(run.config_hash, data.manifest.digest, time.perf_counter() - began)
    results.append(run.results, rows, source)
    _save(evidence, {**evaluation.evidence(), "settings": settings})
    return rows


def probes(config: EvaluationConfig, data: ClassificationDataModule) -> list[Probe]:
    """Clean first, then OOD splits, then attacks in the configuration's order, then the accuracy-by-eps curve."""
    split = data.config.test_split if config.split == "test" else data.config.val_split
    labelled = data.manifest.samples(split)
    samples = min(config.samples or labelled, labelled)
    attacked = min(config.attacked_samples or samples, samples)
    planned = [Probe("clean", split, samples)]
    if isinstance(data, OpenWorldDataModule):
        planned += [
            Probe("clean", split, data.manifest.samples(split), group=group)
            for group, splits in data.ood_splits.items()
            for split in splits
        ]
    planned += [Probe(name, split, attacked, _radius(name, attack)) for name, attack in config.attacks.items()]
    return planned + [Probe("sweep", split, attacked, _sweep(eps)) for eps in config.eps_sweep_255]


def _radius(name: str, attack: Attack) -> Attack:
    if isinstance(attack, NoAttack):
        raise ConfigError(f"evaluation.attacks.{name} has kind none, and clean accuracy is always measured; remove it")
    return attack


def _sweep(eps_255: float) -> Attack | None:
    """One point of the curve; steps of a quarter of the radius cross the ball more than twice."""
    return PGD(eps_255=eps_255, step_255=eps_255 / 4, steps=SWEEP_STEPS, loss="ce") if eps_255 else None


def _temperatures(config: EvaluationConfig, backbone: Backbone) -> dict[str, float]:
    own = 1 / float(backbone.logit_scale.detach())
    return dict.fromkeys(config.scores, config.mcm_temperature or own)


def _settings(evidence: Path) -> str | None:
    if not evidence.exists():
        return None
    with np.load(evidence) as saved:
        return str(saved["settings"])


@rank_zero_only
def _save(path: Path, arrays: Mapping[str, Any]) -> None:
    with replacing(path) as file:
        np.savez_compressed(file, allow_pickle=False, **{name: np.asarray(array) for name, array in arrays.items()})
