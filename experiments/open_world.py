"""Measuring for a run how well a model tells what is not in-distribution."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_only

from configs.schema import ExperimentConfig
from configs.schema.open_world import OpenWorldConfig
from configs.schema.scores import SDis
from configs.schema.vaccination import VaccinationConfig
from datamodules.classification import ClassificationDataModule
from datamodules.open_world import OpenWorldDataModule
from experiments.probe_data import look
from experiments.vaccinate import embedded
from lightning_modules.backbones import Backbone
from lightning_modules.detection import OpenWorldEvaluation, World
from lightning_modules.detection.clean_look import Part
from lightning_modules.features import Features
from lightning_modules.open_world import needs_features
from lightning_modules.probes import Terms


def measure_open_world(
    config: ExperimentConfig, backbone: Backbone, data: ClassificationDataModule, stage: str, folder: Path
) -> OpenWorldEvaluation | None:
    """Runs `evaluation.open_world`; None where it is left out or the data have no OOD splits.

    Args:
        folder: of what is known of attacked samples.

    Raises:
        DataError: a sample can't be read, or was not seen exactly once.
    """
    wanted = config.evaluation.open_world
    if wanted is None or not isinstance(data, OpenWorldDataModule) or not any(data.ood_splits.values()):
        return None
    vaccine = config.vaccination.bank if config.vaccination and backbone.immunity else None
    settings = _possible(wanted, backbone, stage)
    world = World(
        data.class_names,
        data.templates,
        config.antibodies,
        vaccine,
        {split: data.concepts(split) for splits in data.ood_splits.values() for split in splits},
        _features(config, settings, backbone, data),
    )
    evaluation = config.evaluation
    terms = Terms(config.seed, evaluation.slots, evaluation.precision == "bf16", evaluation.compile)
    wanted_parts = parts(config, settings, data)
    module = OpenWorldEvaluation(
        backbone.channels_last(), wanted_parts, settings=settings, world=world, terms=terms, folder=folder
    )
    look(config, f"open world, {stage}", module, data, wanted_parts)
    return module


def open_world_evidence(module: OpenWorldEvaluation, data: ClassificationDataModule) -> dict[str, Any]:
    """What is kept of a measurement, see `kept`; and what is on the pictures, where the data say so: `shown/SPLIT` and
    `attacked_shown/SPLIT`, texts (N,) and (n,)."""
    found = module.evidence()
    for part in module.parts[1:]:
        names = data.shown(part.split, part.samples)
        if names is not None:
            found[f"{'attacked_' if part.attacked else ''}shown/{part.split}"] = names
    return found


def parts(config: ExperimentConfig, settings: OpenWorldConfig, data: OpenWorldDataModule) -> list[Part]:
    """In-distribution validation samples, the measured split and the OOD splits; then what is attacked of the latter.

    Where there is no other split to validate on, it is the measured one.
    """
    evaluation = config.evaluation
    split = data.config.test_split if evaluation.split == "test" else data.config.val_split
    splits = [(split, None), *((each, group) for group, members in data.ood_splits.items() for each in members)]
    clean = [Part(data.config.val_split, _samples(data, data.config.val_split, evaluation.samples))]
    clean += [Part(each, _samples(data, each, None if group else evaluation.samples), group) for each, group in splits]
    if not settings.attacks:
        return clean
    count = settings.attacked_samples
    return clean + [Part(each, _samples(data, each, count), group, attacked=True) for each, group in splits]


def _samples(data: OpenWorldDataModule, split: str, wanted: int | None) -> int:
    there = data.samples(split)
    return min(wanted or there, there)


def _possible(settings: OpenWorldConfig, backbone: Backbone, stage: str) -> OpenWorldConfig:
    """Without the vaccinated model's own scores where the model is not vaccinated."""
    if backbone.immunity is not None:
        return settings
    left_out = [name for name, setting in settings.wanted.items() if isinstance(setting, SDis)]
    if left_out:
        _say(f"The model is not vaccinated ({stage}): {', '.join(left_out)} left out")
    attacked = [name for name in settings.attacked_scores if name not in left_out]
    return replace(
        settings,
        scores={name: setting for name, setting in settings.scores.items() if name not in left_out},
        attacked_scores=attacked,
        attacks=settings.attacks if attacked else {},
        joint=settings.joint and bool(attacked),
    )


def _features(
    config: ExperimentConfig, settings: OpenWorldConfig, backbone: Backbone, data: ClassificationDataModule
) -> Features | None:
    if not needs_features(settings.wanted):
        return None
    return embedded(config, config.vaccination or VaccinationConfig(), backbone, data, data.config.train_split)


@rank_zero_only
def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
