"""What a run would do: its folder, data, parameters and cost. Nothing is packed, downloaded or trained for it."""

from typing import Any

from configs.compose import Composed
from configs.errors import CheckpointError
from configs.schema import ExperimentConfig
from datamodules import build_datamodule
from experiments.costs.accelerators import Machine
from experiments.costs.bill import bill, measuring
from experiments.costs.blueprint import Blueprint, Setting, blueprint
from experiments.costs.cost import choose
from experiments.costs.passes import attack_passes, passes
from experiments.costs.texts import texts_of
from experiments.runs import Run

ANY_GPU = Machine()

Facts = list[tuple[str, Any]]


def plan(composed: Composed, machine: Machine) -> int:
    """Prints the plan. Returns the exit code."""
    print(describe(composed, machine))
    return 0


def describe(composed: Composed, machine: Machine = ANY_GPU) -> str:
    """The plan of a run, a line a fact, with its cost on a machine."""
    config = composed.config
    run = Run.of(composed)
    facts: Facts = [
        ("run folder", run.folder),
        ("config hash", composed.hash),
        ("status", run.status.state if run.status else "not started"),
        *((f"data: {name}", value) for name, value in _data(config).items()),
        *_model(config, machine),
    ]
    width = max(len(name) for name, _ in facts)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in facts)


def _model(config: ExperimentConfig, machine: Machine) -> Facts:
    """Counted on a model without weights, so that nothing is downloaded."""
    try:
        model = blueprint(Setting.of(config.model.name, config.trainer))
    except CheckpointError as error:
        return [("parameters", f"unknown, and with them the cost: {error}"), *_steps(config)]
    facts = [("parameters", _parameters(model, config))]
    if passes(config).trained:
        facts += [*_steps(config), *bill(config, machine, *texts_of(config))]
    return facts + _measurement(config, machine)


def _parameters(model: Blueprint, config: ExperimentConfig) -> str:
    choose(model.backbone, config)
    counts = [(parameter.numel(), parameter.requires_grad) for parameter in model.backbone.parameters()]
    return f"{sum(count for count, trained in counts if trained):,} trained of {sum(count for count, _ in counts):,}"


def _steps(config: ExperimentConfig) -> Facts:
    count = passes(config)
    batches = config.trainer.steps * config.trainer.accumulate
    return [
        ("steps", f"{config.trainer.steps:,} of {config.trainer.accumulate} x {config.data.batch_size} samples"),
        ("samples seen", f"{batches * config.data.batch_size:,}"),
        ("passes per batch", f"{count.forwards} forward, {count.backwards} backward"),
        ("passes in all", f"{batches * count.forwards:,} forward, {batches * count.backwards:,} backward, of a batch"),
    ]


def _measurement(config: ExperimentConfig, machine: Machine) -> Facts:
    """An attacked sample costs less where it falls early."""
    told: Facts = []
    wanted, levels = config.evaluation, config.evaluation.superclass
    for name, attack in wanted.attacks.items():
        forwards, backwards = attack_passes(attack)
        cost = measuring(config, machine, forwards, backwards, wanted.attacked_samples)
        told.append((f"measured under {name}", f"at most {forwards:,} forward, {backwards:,} backward, {cost}"))
    for name, attack in (levels.attacks if levels else {}).items():
        forwards, backwards = attack_passes(attack)
        cost = measuring(config, machine, forwards + 1, backwards, None)
        each = f"at most {forwards + 1:,} forward, {backwards:,} backward, {cost} and level of the hierarchy"
        told.append((f"superclasses under {name}", each))
    scores = wanted.open_world
    for name, attack in (scores.attacks if scores else {}).items():
        forwards, backwards = attack_passes(attack)
        cost = measuring(config, machine, forwards + 1, backwards, None)
        each = f"{forwards + 1:,} forward, {backwards:,} backward, {cost} and attacked score"
        told.append(
            (f"open world under {name}", each + (", twice for the joint attack" if scores and scores.joint else ""))
        )
    return told


def _data(config: ExperimentConfig) -> dict[str, Any]:
    told = build_datamodule(config.data, config.seed, config.trainer.accumulate).describe()
    world = config.trainer.devices * config.trainer.nodes
    told |= {"ranks": world, "batch per rank": config.data.batch_size // world}
    if not told.get("packed", True):
        told["packed"] = "no" if told.pop("source", None) is None else "not yet; training packs it first"
    return told
