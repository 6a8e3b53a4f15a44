"""One attack, three times: this engine, torchattacks at the same iterations, and the full schedule of the reference."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torchattacks
from torch import Tensor, nn

from configs.schema import attack as schema
from experiments.bench.full_schedule import FullSchedule
from experiments.bench.subjects import Subject
from lightning_modules import attacks
from lightning_modules.attacks import LOSSES, AutoAttack, ModelFn, Outcome, Samples, misclassified

CROSS_ENTROPY = LOSSES["ce"]


class Ran(NamedTuple):
    """Who fell, bool (N,), and how many images the model was asked about."""

    fallen: Tensor
    images: int


@dataclass(frozen=True)
class Budget:
    """How far the attacks go: iterations, classes aimed at, queries of Square."""

    steps: int
    targets: int
    queries: int


def settings(eps_255: float, budget: Budget) -> dict[str, schema.Attack]:
    """The attacks by name, L-inf; AutoAttack standard last."""
    steps, targets, queries = budget.steps, budget.targets, budget.queries
    return {
        "APGD-CE": schema.APGD(eps_255=eps_255, steps=steps, loss="ce"),
        "APGD-T": schema.TargetedAPGD(eps_255=eps_255, steps=steps, targets=targets),
        "FAB-T": schema.FAB(eps_255=eps_255, steps=steps, targets=targets),
        "Square": schema.Square(eps_255=eps_255, queries=queries),
        "AutoAttack": schema.AutoAttack(eps_255=eps_255, steps=steps, targets=targets, queries=queries),
    }


def engine(subject: Subject, setting: schema.Attack, model_fn: ModelFn, confirm_fn: ModelFn | None = None) -> Ran:
    """This project's engine, fed batch by batch as an evaluation feeds it."""
    stream = _built(setting).stream(model_fn, CROSS_ENTROPY, misclassified, subject.slots, confirm_fn)
    fallen = torch.zeros(len(subject.labels), dtype=torch.bool, device=subject.device)
    for part in batches(subject, model_fn):
        _note(fallen, stream.push(part))
    _note(fallen, stream.finish())
    return Ran(fallen, stream.queries)


def full_schedule(subject: Subject, setting: schema.Attack, model_fn: ModelFn) -> Ran:
    """Every sample runs all iterations of a trial, over the same methods."""
    schedule = FullSchedule(_built(setting).methods, model_fn, CROSS_ENTROPY, misclassified, subject.slots)
    return Ran(schedule.run(Samples.join(list(batches(subject, model_fn)))), schedule.images)


def peer(subject: Subject, setting: schema.Attack, module: nn.Module) -> Tensor:
    """torchattacks, in batches of the same size: who falls, bool (N,). Global random state is put back."""
    attack = torchattack(setting, module)
    with torch.random.fork_rng():
        parts = zip(*(torch.split(each, subject.slots) for each in (subject.pixels, subject.labels)), strict=True)
        fallen = [misclassified(module(attack(pixels, labels)).detach(), labels) for pixels, labels in parts]
    return torch.cat(fallen)


def torchattack(setting: schema.Attack, module: nn.Module) -> Any:
    """torchattacks' version of an attack, with the steps, target classes and queries of the setting."""
    match setting:
        case schema.PGD(eps_255=eps, step_255=step, steps=steps):
            return torchattacks.PGD(module, eps / 255, step / 255, steps)
        case schema.APGD(eps_255=eps, steps=steps):
            return torchattacks.APGD(module, eps=eps / 255, steps=steps)
        case schema.TargetedAPGD(eps_255=eps, steps=steps, targets=targets):
            return torchattacks.APGDT(module, eps=eps / 255, steps=steps, n_classes=targets + 1)
        case schema.FAB(eps_255=eps, steps=steps, targets=int(targets)):
            return torchattacks.FAB(module, eps=eps / 255, steps=steps, multi_targeted=True, n_classes=targets + 1)
        case schema.Square(eps_255=eps, queries=queries):
            return torchattacks.Square(module, eps=eps / 255, n_queries=queries, resc_schedule=False)
        case schema.AutoAttack():
            return torchattacks.MultiAttack([torchattack(member, module) for member in setting.members])
    raise AssertionError(setting)


def batches(subject: Subject, model_fn: ModelFn) -> Iterator[Samples]:
    """A subject's samples, with what the model says about them."""
    rows = torch.arange(len(subject.labels), device=subject.labels.device)
    columns = (torch.split(each, subject.slots) for each in (rows, subject.pixels, subject.labels, subject.seeds))
    for row, pixels, labels, seeds in zip(*columns, strict=True):
        with torch.no_grad():
            outputs = model_fn(pixels)
        yield Samples(row, pixels, labels, outputs, seeds, torch.zeros_like(row))


def _note(fallen: Tensor, outcomes: list[Outcome]) -> None:
    for outcome in outcomes:
        fallen[outcome.row] = outcome.fallen


def _built(setting: schema.Attack) -> AutoAttack:
    attack = attacks.build(setting)
    assert isinstance(attack, AutoAttack)
    return attack
