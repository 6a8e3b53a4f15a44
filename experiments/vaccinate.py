"""Vaccinating a model for a run: embeddings, prototypes, choice of the constants, training, thresholds.

Opens the training and the validation split, and no other: whatever is chosen here is chosen on them and on antibodies.
"""

import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_only

from configs.schema import ExperimentConfig
from configs.schema.vaccination import VaccinationConfig
from datamodules.classification import ClassificationDataModule
from datamodules.pack import exclusive
from experiments.atomic import write_text
from experiments.probe_data import ProbeData
from experiments.runs import Run, rank
from experiments.trainer import build_tester
from lightning_modules.antibodies import Selection, build, write_folder
from lightning_modules.backbones import Backbone, prompt_embeddings
from lightning_modules.features import FeatureExtraction, Features, identity
from lightning_modules.heads import CosineHead
from lightning_modules.immune_texts import ImmuneTexts, encoded, selected
from lightning_modules.immunisation import Immunisation
from lightning_modules.open_world.choice import Trial, best, mean, trials
from lightning_modules.open_world.immunity import Immunity
from lightning_modules.open_world.temperature import fit_temperature
from lightning_modules.probes import Probe
from lightning_modules.vaccination import Antibodies, Vaccination

REPORT, BANK = "vaccination.json", "antibodies"


def vaccinate(run: Run, config: ExperimentConfig, backbone: Backbone, data: ClassificationDataModule) -> Immunity:
    """Chooses the constants where some classes are held out, trains the adapter with all classes and antibodies, fits
    the thresholds, and writes what was found to vaccination.json, the bank and its selection to antibodies/. The same
    on every rank.

    Raises:
        DataError: a split is missing or can't be read; a class has no training image; the calibration images' scores
            leave no tail to fit; see also `build` and `selected`.
    """
    assert config.vaccination is not None
    began, settings = time.perf_counter(), config.vaccination
    vaccination = material(config, backbone, data)
    source = config.antibodies[settings.bank]
    bank = build(source, data.class_names, settings.bank)
    whole = encoded(backbone, source, bank, data.templates, vaccination.texts)
    texts = selected(whole, source, vaccination.texts)
    if texts.selection is not None:
        _keep(run.folder / BANK, whole, texts.selection)
    owners = torch.tensor(texts.bank.owners, dtype=torch.int64)
    antibodies = Antibodies(texts.features.detach().cpu(), owners, tuple(texts.bank.captions))
    chosen, found = _choose(config, vaccination, antibodies)
    immunity = _immune(config, vaccination, antibodies, chosen)
    told = {
        "bank": settings.bank,
        "bank_digest": texts.bank.digest,
        "antibodies": len(antibodies),
        "classes": len(data.class_names),
        "training_images": len(vaccination.places),
        "calibration_images": len(vaccination.calibration[1]),
        "kappa": float(immunity.kappa.mean()),
        "temperature": immunity.temperature,
        "chosen": asdict(chosen),
        "pooled_thresholds": int(immunity.tails.pooled.sum()),
        "trials": [asdict(trial) for trial in found],
        "seconds": time.perf_counter() - began,
    }
    _report(run.folder / REPORT, told)
    return immunity


def material(config: ExperimentConfig, backbone: Backbone, data: ClassificationDataModule) -> Vaccination:
    """What a model is vaccinated on, antibodies apart."""
    assert config.vaccination is not None
    settings = config.vaccination
    data.prepare_data()
    splits = dict.fromkeys((data.config.train_split, data.config.val_split))
    train, *val = (embedded(config, settings, backbone, data, split) for split in splits)
    prompts = prompt_embeddings(backbone, data.class_names, data.templates)
    return Vaccination(
        settings,
        config.seed,
        data.class_names,
        train,
        val[0] if val else None,
        CosineHead(1.0).texts(prompts).cpu(),
        float(backbone.logit_scale.detach()),
    )


def embedded(
    config: ExperimentConfig,
    settings: VaccinationConfig,
    backbone: Backbone,
    data: ClassificationDataModule,
    split: str,
) -> Features:
    """Embeddings of a whole split, from the cache where they are."""
    name = identity(backbone, data.manifest.digest, split, data.config.image_size, settings.precision)
    folder = Path(settings.cache) / name
    with _alone(folder):
        if not folder.exists():
            samples = data.manifest.samples(split)
            module = FeatureExtraction(backbone.eval(), folder, samples, settings.precision)
            build_tester(config, f"embedding {split}").test(
                module,
                datamodule=ProbeData(data, [Probe(split, split, samples)], config.evaluation.batch_size),
                verbose=False,
            )
    return Features.open(folder)


def trained(config: ExperimentConfig, vaccination: Vaccination, antibodies: Antibodies, margin: float) -> Immunity:
    """An Immunity whose adapter was trained, with thresholds that turn nothing away."""
    immunity = vaccination.immunity(antibodies)
    module = Immunisation(
        immunity, vaccination.settings, vaccination.train, vaccination.places, margin, vaccination.seed
    )
    trainer = build_tester(config, "vaccination")  # it writes nothing either
    trainer.fit_loop.max_epochs = 1  # which holds all epochs
    trainer.fit(module)
    return immunity.cpu().eval()


def _choose(config: ExperimentConfig, vaccination: Vaccination, antibodies: Antibodies) -> tuple[Trial, list[Trial]]:
    """The best of all constants, and what was tried; the last of each grid where there are too few classes to try it.

    The whitening is chosen with an adapter that does nothing, which costs no training, and then kept.
    """
    settings = vaccination.settings
    folds = [vaccination.without(held_out) for held_out in vaccination.folds]
    last = Trial(settings.whitenings[-1], settings.margins[-1], settings.strengths[-1], settings.lambdas[-1], 0.5, 0.0)
    if not folds:
        return last, []
    zero_shot = fmean(fewer.zero_shot for fewer, _ in folds)

    def tried(whitening: float, margin: float | None, strengths: Sequence[float]) -> list[Trial]:
        found = []
        for fewer, numbers in folds:
            known, texts = fewer.whitened(whitening), antibodies.relabelled(numbers)
            immunity = known.immunity(texts) if margin is None else trained(config, known, texts, margin)
            found.append(trials(immunity, whitening, margin or 0.0, strengths, settings.lambdas, *known.calibration))
        return mean(found)

    untouched = [trial for whitening in settings.whitenings for trial in tried(whitening, None, [0.0])]
    whitening = best(untouched, zero_shot).whitening
    found = untouched if 0.0 in settings.strengths else []
    strengths = [strength for strength in settings.strengths if strength]
    margins = settings.margins if settings.push_weight and len(antibodies) else settings.margins[:1]
    for margin in margins if strengths else []:
        found = found + tried(whitening, margin, strengths)
    return best(found, zero_shot), found


def _immune(config: ExperimentConfig, vaccination: Vaccination, antibodies: Antibodies, chosen: Trial) -> Immunity:
    """Trained as chosen, thresholds and confidence calibrated."""
    vaccination = vaccination.whitened(chosen.whitening)
    if chosen.strength:
        immunity = trained(config, vaccination, antibodies, chosen.margin).weakened(chosen.strength)
    else:
        immunity = vaccination.immunity(antibodies).eval()
    immunity.lambda_inf, settings = chosen.lambda_inf, vaccination.settings
    immunity.calibrate(
        vaccination.calibration[0],
        tail=settings.tail,
        rejected=settings.rejected,
        tail_samples=settings.tail_samples,
    )
    known = vaccination.calibration[1] >= 0
    embeddings, labels = (each[known] for each in vaccination.calibration)
    immunity.temperature = fit_temperature(immunity.logits(immunity.adapt(embeddings)).detach(), labels)
    return immunity


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One run at a time embeds; its other ranks follow the first."""
    if rank():
        yield
    else:
        with exclusive(folder):
            yield


@rank_zero_only
def _keep(folder: Path, whole: ImmuneTexts, selection: Selection) -> None:
    write_folder(folder, whole.bank, whole.features, selection)


@rank_zero_only
def _report(path: Path, told: dict[str, Any]) -> None:
    write_text(path, json.dumps(told, indent=2) + "\n")
    chosen = ", ".join(f"{name} {value:.3g}" for name, value in dict(told["chosen"]).items())
    line = f"vaccinated with {told['antibodies']} antibodies of {told['bank']}; on held-out classes: {chosen}"
    if told["pooled_thresholds"]:
        line += (
            f"; {told['pooled_thresholds']} of {told['classes']} classes have too few validation images for a "
            "threshold of their own, and take that of all classes together"
        )
    print(line, file=sys.stderr)
