"""What a run would do: its folder, data, parameters and cost. Nothing is packed, downloaded or trained for it."""

import logging
from typing import Any

import torch

from configs.compose import Composed
from configs.errors import CheckpointError
from configs.schema import ExperimentConfig
from configs.schema.attack import Attack
from configs.schema.evaluation import EvaluationConfig
from configs.schema.model import ModelConfig
from configs.schema.module import RobustFinetuning
from datamodules import build_datamodule
from experiments.runs import Run
from lightning_modules import attacks, objectives
from lightning_modules.backbones import Backbone, load_backbone
from lightning_modules.heads import CosineHead
from lightning_modules.hierarchy import Forest, Tree

MANY_CLASSES = 10**6  # more than an attack aims at


def describe(composed: Composed) -> str:
    """The plan of a run, a line a fact."""
    config = composed.config
    run = Run.of(composed)
    facts: dict[str, Any] = {
        "run folder": run.folder,
        "config hash": composed.hash,
        "status": run.status.state if run.status else "not started",
        **{f"data: {name}": value for name, value in _data(config).items()},
        **_parameters(config),
        **_cost(config),
        **_measurement(config.evaluation),
    }
    width = max(map(len, facts))
    return "\n".join(f"{name:<{width}}  {value}" for name, value in facts.items())


def untrained(name: str) -> Backbone:
    """An architecture with random weights, without open_clip's warning that they are."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        return load_backbone(ModelConfig(name, pretrained="none"))
    finally:
        logging.disable(before)


def passes(config: ExperimentConfig) -> tuple[int, int]:
    """Forward and backward passes of the image tower per training batch; reports add a clean forward now and then."""
    forwards, backwards = _attack_passes(config.attack)
    if not isinstance(config.module, RobustFinetuning):
        return forwards + 1, backwards + 1
    forest = Forest(("a", "b"), (Tree("levels", (("a", "b"), ("c", "d")), ((0, 1),)),))
    needs = objectives.build(config.module.objective, CosineHead(1.0), forest, torch.device("cpu")).needs
    attacked = needs.adversaries
    branches = attacked + needs.clean
    alone = needs.answers + needs.reference + needs.reference_adversarial * attacked
    return forwards * attacked + branches + alone, backwards * attacked + branches


def _attack_passes(config: Attack) -> tuple[int, int]:
    """Of a sample that no attack fells; those of torchattacks are its own affair, and count as none."""
    attack = attacks.build(config)
    if isinstance(attack, attacks.PGD):
        judged = attack.restarts if attack.restarts > 1 else 0
        return attack.restarts * attack.steps + judged, attack.restarts * attack.steps
    if not isinstance(attack, attacks.AutoAttack):
        return 0, 0
    counts = [(method.trials(MANY_CLASSES) * method.queries, method.needs_gradient) for method in attack.methods]
    forwards = sum(queries for queries, _ in counts)
    return forwards, sum(queries * sum(asked) // len(asked) for queries, asked in counts)


def _measurement(config: EvaluationConfig) -> dict[str, str]:
    """An attacked sample costs less where it falls early."""
    told = {}
    for name, attack in config.attacks.items():
        forwards, backwards = _attack_passes(attack)
        told[f"measured under {name}"] = f"at most {forwards:,} forward, {backwards:,} backward, of a sample"
    for name, attack in (config.superclass.attacks if config.superclass else {}).items():
        forwards, backwards = _attack_passes(attack)
        each = f"at most {forwards + 1:,} forward, {backwards:,} backward, of a sample for each level of the hierarchy"
        told[f"superclasses under {name}"] = each
    wanted = config.open_world
    for name, attack in (wanted.attacks if wanted else {}).items():
        forwards, backwards = _attack_passes(attack)
        each = f"{forwards + 1:,} forward, {backwards:,} backward, of a sample for each attacked score"
        told[f"open world under {name}"] = each + (", twice for the joint attack" if wanted and wanted.joint else "")
    return told


def _data(config: ExperimentConfig) -> dict[str, Any]:
    told = build_datamodule(config.data, config.seed, config.trainer.accumulate).describe()
    world = config.trainer.devices * config.trainer.nodes
    told |= {"ranks": world, "batch per rank": config.data.batch_size // world}
    if not told.get("packed", True):
        told["packed"] = "no" if told.pop("source", None) is None else "not yet; training packs it first"
    return told


def _parameters(config: ExperimentConfig) -> dict[str, str]:
    """Counted on random weights, so that nothing is downloaded."""
    try:
        backbone = untrained(config.model.name)
    except CheckpointError as error:
        return {"parameters": f"unknown: {error}"}
    if isinstance(config.module, RobustFinetuning):
        from lightning_modules.robust_finetuning import choose_trained

        choose_trained(backbone, config.module.objective)
    total = sum(parameter.numel() for parameter in backbone.parameters())
    trained = sum(parameter.numel() for parameter in backbone.parameters() if parameter.requires_grad)
    return {"parameters": f"{trained:,} trained of {total:,}"}


def _cost(config: ExperimentConfig) -> dict[str, str]:
    forwards, backwards = passes(config)
    batches = config.trainer.steps * config.trainer.accumulate
    return {
        "steps": f"{config.trainer.steps:,} of {config.trainer.accumulate} x {config.data.batch_size} samples",
        "samples seen": f"{batches * config.data.batch_size:,}",
        "passes per batch": f"{forwards} forward, {backwards} backward",
        "passes in all": f"{batches * forwards:,} forward, {batches * backwards:,} backward, of a batch",
    }
