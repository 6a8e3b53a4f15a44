"""Measuring a model for a run: the probes that a configuration asks for, under Lightning, into the run's files."""

import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_only

from configs.errors import ConfigError
from configs.schema import ExperimentConfig
from configs.schema.attack import PGD, Attack, NoAttack
from configs.schema.evaluation import EvaluationConfig
from datamodules.base import PlannedDataModule
from datamodules.classification import ClassificationDataModule
from experiments import adversarial, provenance, results
from experiments.atomic import replacing
from experiments.models.card import describe_model
from experiments.models.labels import Labels
from experiments.open_world import measure_open_world, open_world_evidence
from experiments.probe_data import look
from experiments.runs import Run
from lightning_modules import hierarchy
from lightning_modules.backbones import Backbone, load_backbone
from lightning_modules.backbones.weights import weights_digest
from lightning_modules.evaluation import Evaluation, Examination, Keeping
from lightning_modules.hierarchy import Forest
from lightning_modules.probes import Probe, Terms
from lightning_modules.superclass import SuperclassEvaluation

SWEEP_STEPS = 10  # of PGD, at each point of the accuracy-by-eps curve


def measure(
    run: Run, config: ExperimentConfig, backbone: Backbone, data: PlannedDataModule, stage: str
) -> list[results.Row]:
    """Runs every probe of `config.evaluation`, adds rows to results.jsonl and writes evidence-STAGE.npz.

    A stage that was measured in full with the same settings is read back, not measured again.

    Args:
        stage: what the rows are called: `before` or `after` fine-tuning.

    Raises:
        ConfigError: the data has no labels to compare with, or no hierarchy for `superclass`; the attack has no radius.
        DataError: a sample can't be read, or was not seen exactly once.
    """
    if not isinstance(data, ClassificationDataModule):
        raise ConfigError(
            f"data.kind={config.data.kind} has no labels to measure with; use classification or open_world"
        )
    began = time.perf_counter()
    if config.evaluation.inference == "cosine":
        backbone.hyperbolic = None
    data.prepare_data()
    digest = _digest(backbone, data)
    evidence, settings = run.folder / f"evidence-{stage}.npz", _asked(config, digest)
    if _settings(evidence) == settings:
        return [row for row in results.read(run.results) if row["stage"] == stage]
    folder = run.folder / "ledger" / f"{stage}-{digest}"
    matrix = _matrix(config, backbone, data, folder)
    evaluation = _evaluation(config, backbone, data, stage, folder)
    look(config, f"measuring {stage}", evaluation, data, [tally.probe for tally in evaluation.tallies])
    if matrix:
        look(config, f"superclasses, {stage}", matrix, data, [Probe("superclass", matrix.split, matrix.samples)])
    open_world = measure_open_world(config, backbone, data, stage, folder)
    common = {"dataset": data.manifest.name, "stage": stage, "seed": config.seed}
    rows = [{**row, **common} for module in (evaluation, matrix, open_world) if module for row in module.rows()]
    source = provenance.collect(run.config_hash, data.digest, time.perf_counter() - began)
    results.append(run.results, rows, source)
    _keep_images(run, evaluation, data, stage)
    shown = evaluation.evidence()
    shown |= _fired(backbone, shown, config.evaluation.batch_size)
    shown |= matrix.evidence() if matrix else {}
    shown |= open_world_evidence(open_world, data) if open_world else {}
    _save(evidence, {**shown, "settings": settings})
    _discard_images(evaluation)
    if stage == "after" and run.model.exists():
        _describe(run, config, backbone, data)
    return rows


def _digest(backbone: Backbone, data: ClassificationDataModule) -> str:
    """Of the model and of what it is asked about."""
    model = [backbone.architecture, backbone.preprocess, weights_digest(backbone)]
    hyperbolic, immunity = backbone.hyperbolic, backbone.immunity
    constants = immunity and [immunity.lambda_inf, immunity.danger, immunity.recalibration, immunity.temperature]
    heads = [hyperbolic and hyperbolic.as_dict(), constants, immunity and immunity.captions]
    identity = [data.digest, data.class_names, data.templates, data.config.image_size, model, heads]
    return hashlib.sha256(json.dumps(identity, sort_keys=True, default=str).encode()).hexdigest()[:8]


def _asked(config: ExperimentConfig, digest: str) -> str:
    """All that the figures of a stage depend on, as JSON: settings, what is in the files that they name, and the model
    and data."""
    sections = [
        asdict(config.evaluation),
        asdict(config.hierarchy),
        {name: asdict(bank) for name, bank in config.antibodies.items()},
    ]
    named = [value for value in _leaves(sections) if isinstance(value, str) and Path(value).is_file()]
    contents = {name: hashlib.sha256(Path(name).read_bytes()).hexdigest()[:8] for name in named}
    return json.dumps([*sections, contents, str(config.data.folder), digest], sort_keys=True)


def _leaves(section: Any) -> Iterator[Any]:
    if isinstance(section, (dict, list, tuple)):
        for value in section.values() if isinstance(section, dict) else section:
            yield from _leaves(value)
    else:
        yield section


def _keep_images(run: Run, evaluation: Evaluation, data: ClassificationDataModule, stage: str) -> None:
    for probe, ledger in evaluation.attacks():
        if ledger.save is not None:
            adversarial.save(run.folder / "adversarial" / stage, run.folder.name, data, probe, ledger)


@rank_zero_only
def _discard_images(evaluation: Evaluation) -> None:
    """The ledgers' copies, once nothing can make them necessary again."""
    for _, ledger in evaluation.attacks():
        if ledger.save is not None:
            ledger.discard_images()


@torch.no_grad()
def _fired(backbone: Backbone, shown: Mapping[str, Any], batch_size: int) -> dict[str, list[str]]:
    """Of each picture that the vaccinated model turns away, what the antibody says that it is nearest to; "" of others.

    Pictures are seen as they are kept, rounded to uint8.
    """
    immunity = backbone.immunity
    if immunity is None or not immunity.captions or "pictures/clean" not in shown:
        return {}
    found: dict[str, list[str]] = {}
    for kind in ("clean", "adversarial"):
        pixels = torch.from_numpy(shown[f"pictures/{kind}"]).to(immunity.prototypes.device)
        said = found.setdefault(f"pictures/{kind}_antibody", [])
        for start in range(0, len(pixels), batch_size):
            embeddings = backbone.embed_image(pixels[start : start + batch_size].float() / 255)
            nearest = immunity.most_dangerous(immunity.adapt(embeddings)).tolist()
            accepted = immunity.accept(embeddings).tolist()
            said += ["" if known else immunity.captions[place] for known, place in zip(accepted, nearest, strict=True)]
    return found


@rank_zero_only
def _describe(run: Run, config: ExperimentConfig, backbone: Backbone, data: ClassificationDataModule) -> None:
    describe_model(run.model, run.folder, config, backbone, Labels.of(config, data))


def _evaluation(
    config: ExperimentConfig, backbone: Backbone, data: ClassificationDataModule, stage: str, folder: Path
) -> Evaluation:
    settings = config.evaluation
    planned = probes(settings, data)
    save = None if settings.save_adversarial == "none" else settings.save_adversarial
    return Evaluation(
        backbone.channels_last(),
        planned,
        class_names=data.class_names,
        templates=data.templates,
        trees=_forest(config, data).trees,
        terms=Terms(config.seed, settings.slots, settings.precision == "bf16", settings.compile, settings.pictures),
        keeping=Keeping(folder, save, settings.reuse),
        examination=_examination(config, data, stage, planned),
    )


def _forest(config: ExperimentConfig, data: ClassificationDataModule) -> Forest:
    return hierarchy.build(config.hierarchy, data.class_names, data.manifest.trees)


def _matrix(
    config: ExperimentConfig, backbone: Backbone, data: ClassificationDataModule, folder: Path
) -> SuperclassEvaluation | None:
    settings, wanted = config.evaluation, config.evaluation.superclass
    if wanted is None:
        return None
    split = _split(settings, data)
    labelled = data.samples(split)
    return SuperclassEvaluation(
        backbone.channels_last(),
        _forest(config, data),
        templates=data.templates,
        settings=wanted.attacks,
        split=split,
        samples=min(wanted.samples or labelled, labelled),
        terms=Terms(config.seed, settings.slots, settings.precision == "bf16", settings.compile),
        folder=folder,
    )


def _examination(
    config: ExperimentConfig, data: ClassificationDataModule, stage: str, planned: list[Probe]
) -> Examination | None:
    attacked = next((probe for probe in planned if probe.attack is not None), None)
    if not config.evaluation.checks or attacked is None:
        return None
    count = min(config.evaluation.check_samples, attacked.samples)
    data.trainer = None  # of an earlier stage; every rank looks at all of these samples
    batch = data.sample(attacked.split, count)
    undefended = load_backbone(config.model) if stage == "after" else None
    return Examination(batch, undefended)


def probes(config: EvaluationConfig, data: ClassificationDataModule) -> list[Probe]:
    """Clean first, then attacks in the configuration's order, then the accuracy-by-eps curve."""
    split = _split(config, data)
    labelled = data.samples(split)
    samples = min(config.samples or labelled, labelled)
    attacked = min(config.attacked_samples or samples, samples)
    planned = [Probe("clean", split, samples)]
    planned += [
        Probe(name, split, attacked, _radius(name, attack), patient=config.all_levels)
        for name, attack in config.attacks.items()
    ]
    return planned + [Probe("sweep", split, attacked, _sweep(eps)) for eps in config.eps_sweep_255]


def _split(config: EvaluationConfig, data: ClassificationDataModule) -> str:
    return data.config.test_split if config.split == "test" else data.config.val_split


def _radius(name: str, attack: Attack) -> Attack:
    if isinstance(attack, NoAttack):
        raise ConfigError(f"evaluation.attacks.{name} has kind none, and clean accuracy is always measured; remove it")
    return attack


def _sweep(eps_255: float) -> Attack | None:
    """One point of the curve; steps of a quarter of the radius cross the ball more than twice."""
    return PGD(eps_255=eps_255, step_255=eps_255 / 4, steps=SWEEP_STEPS, loss="ce") if eps_255 else None


def _settings(evidence: Path) -> str | None:
    if not evidence.exists():
        return None
    with np.load(evidence) as saved:
        return str(saved["settings"])


@rank_zero_only
def _save(path: Path, arrays: Mapping[str, Any]) -> None:
    with replacing(path) as file:
        np.savez_compressed(file, allow_pickle=False, **{name: np.asarray(array) for name, array in arrays.items()})
