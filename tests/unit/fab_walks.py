"""What the tests of FAB-T share: clear samples, the walk question by question, and the published algorithm."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from lightning_modules.attacks import AutoAttack, misclassified
from lightning_modules.attacks.attack import ask
from lightning_modules.attacks.fab import BoundaryWalks, TargetedFAB
from lightning_modules.attacks.losses import cross_entropy, margin
from lightning_modules.attacks.method import Answer
from lightning_modules.attacks.outcome import Outcome
from lightning_modules.attacks.walks import Samples
from tests.unit.networks import images, seeds

NORMS = ["linf", "l2", "l1"]
ORDER = {"linf": float("inf"), "l2": 2.0, "l1": 1.0}
RADIUS = {"linf": 0.017, "l2": 0.16, "l1": 0.6}  # about half of the samples fall
Model = Callable[[Tensor], Tensor]


def samples(model: Model, count: int, trial: int = 0) -> Samples:
    """Of many images those with the clearest label: a margin of float32 logits must not drown in their rounding."""
    clean, row = images(8 * count, low=0.1, high=0.9), torch.arange(count)
    logits = model(clean).detach()
    clear = margin(logits, logits.argmax(1)).argsort()[:count]
    clean, outputs = clean[clear], logits[clear]
    return Samples(row, clean, outputs.argmax(1), outputs, seeds(count), torch.full_like(row, trial))


def question(method: TargetedFAB, model: Model, walks: BoundaryWalks) -> Answer:
    """With a gradient at every other question, as the engine asks."""
    gradient = not bool(walks.stepped.any())
    return Answer(*ask(model, walks.pixels, lambda outputs: method.loss(outputs, walks, cross_entropy), gradient))


def ends(method: TargetedFAB, model: Model, given: Samples) -> tuple[list[list[float]], list[int]]:
    """For each sample the norms of its adversarial ends of steps, and how many questions its trial took."""
    walks = method.begin(given)
    norms: list[list[float]] = [[] for _ in given.row]
    questions = [0] * len(given)
    while not method.over(walks).all():
        answer, live = question(method, model, walks), ~method.over(walks)
        adverse = live & walks.stepped & misclassified(answer.outputs, walks.target)
        for row in range(len(given)):
            questions[row] += int(live[row])
            if adverse[row]:
                norms[row].append(float((walks.pixels[row] - given.clean[row]).flatten().norm(ORDER[method.norm])))
        method.advance(walks, answer)
    return norms, questions


def attacked(method: TargetedFAB, model: Model, given: Samples, slots: int = 64, judged: bool = True) -> Outcome:
    stream = AutoAttack((method,)).stream(model, cross_entropy, misclassified if judged else None, slots)
    outcome = Outcome.join([*stream.push(given), *stream.finish()])
    return outcome.select(outcome.row.argsort())


def nearest(point: np.ndarray, normal: np.ndarray, height: float, norm: str) -> np.ndarray:
    """The shortest move within the box by bisection on its multiplier, or for L1 coordinate by coordinate."""
    direction = -np.sign(normal) * (1.0 if height >= 0 else -1.0)
    room, slope = np.where(direction > 0, 1 - point, point), np.abs(normal)
    if norm == "l1":
        left, move = abs(height), np.zeros_like(point)
        for place in np.argsort(-slope):
            if left <= 0 or slope[place] == 0:
                break
            move[place] = min(room[place], left / slope[place])
            left -= move[place] * slope[place]
        return direction * move
    pace = np.ones_like(point) if norm == "linf" else slope
    low, high = 0.0, 1.0
    while slope @ np.minimum(high * pace, room) < abs(height) and high < 1e12:
        high *= 2
    for _ in range(80):
        middle = (low + high) / 2
        short = slope @ np.minimum(middle * pace, room) < abs(height)
        low, high = (middle, high) if short else (low, middle)
    return direction * np.minimum(high * pace, room)


def published(model: Model, clean: Tensor, start: Tensor, label: int, aim: int, norm: str, steps: int) -> list[float]:
    """Norms of the adversarial ends of steps, for clean and start (1, C, H, W). Two evaluations a step: the gradient
    at its beginning, the class at its end."""
    origin, here, norms = clean.double().flatten().numpy(), start.double().flatten().numpy(), []
    for _ in range(steps):
        point = torch.tensor(here).view(clean.shape).requires_grad_()
        logits = model(point)[0]
        height = logits[aim] - logits[label]
        normal, value = torch.autograd.grad(height, point)[0].flatten().numpy(), float(height.detach())
        move = nearest(here, normal, value, norm)
        home = nearest(origin, normal, value + float(normal @ (origin - here)), norm)
        short, long = (max(float(np.linalg.norm(each, ORDER[norm])), 1e-8) for each in (move, home))
        weight = min(short / (short + long), 0.1)
        here = ((1 - weight) * (here + 1.05 * move) + weight * (origin + 1.05 * home)).clip(0, 1)
        if int(model(torch.tensor(here).view(clean.shape))[0].argmax()) != label:
            norms.append(float(np.linalg.norm(here - origin, ORDER[norm])))
            here = origin + 0.9 * (here - origin)
    return norms
