"""AutoAttack in the order of its reference implementation, over this project's own methods.

What slot scheduling is compared with: the mathematics is the same, sample by sample, and so is the set of the fallen.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import cycle
from typing import Any

import torch
from torch import Tensor

from lightning_modules.attacks import FallenFn, LossFn, ModelFn, Samples, noise
from lightning_modules.attacks.attack import ask
from lightning_modules.attacks.method import Answer, Method
from lightning_modules.attacks.walks import Walks


@dataclass
class FullSchedule:
    """Attacks in a row on batches of the samples that stand; every sample of a batch runs all iterations of a trial.

    Batches shrink between trials, never within one. As in the reference the model is asked about the clean images
    before every attack, and again for each class aimed at, and for a gradient after the last step too. Square alone, as
    there, goes on with those that stand only.
    """

    methods: Sequence[Method[Any]]
    model_fn: ModelFn
    loss_fn: LossFn
    fallen_fn: FallenFn
    slots: int
    images: int = 0  # that the model was asked about

    @torch.no_grad()
    def run(self, samples: Samples) -> Tensor:
        """Who falls, bool (N,), of samples that the model gets right."""
        fallen = torch.zeros(len(samples), dtype=torch.bool, device=samples.row.device)
        for stage, method in enumerate(self.methods):
            standing = (~fallen).nonzero().squeeze(1)
            if not len(standing):
                break
            for rows in torch.split(standing, self.slots):
                batch = samples.select(rows)
                fallen[rows] = self._attack(method, replace(batch, seeds=noise.derive(batch.seeds, stage)))
        return fallen

    def _attack(self, method: Method[Any], batch: Samples) -> Tensor:
        fallen = torch.zeros(len(batch), dtype=torch.bool, device=batch.row.device)
        self._predict(batch.clean)  # which of them are right: all
        for trial in range(method.trials(batch.outputs.shape[1])):
            rows = (~fallen).nonzero().squeeze(1)
            if not len(rows):
                break
            places = torch.arange(len(rows), device=rows.device)
            tried = replace(batch.select(rows), row=places, trial=torch.full_like(places, trial))
            if method.targeted:
                self._predict(tried.clean)  # which class to aim at
            fallen[rows] = self._walk(method, tried)
        return fallen

    def _walk(self, method: Method[Any], samples: Samples) -> Tensor:
        """One trial from end to end: who fell on the way."""
        walks: Walks = method.begin(samples)
        fallen = torch.zeros(len(samples), dtype=torch.bool, device=samples.row.device)
        for _, gradient in zip(range(method.queries), cycle(method.needs_gradient), strict=False):
            answer = self._ask(method, walks, gradient)
            fell, inside = self.fallen_fn(answer.outputs, walks.target) & ~method.over(walks), method.inside(walks)
            fallen[walks.row] |= fell if inside is None else fell & inside
            method.advance(walks, answer)
            if not any(method.needs_gradient):
                walks = walks.select(~fallen[walks.row])
            if not len(walks):
                break
        return fallen

    def _ask(self, method: Method[Any], walks: Walks, gradient: bool) -> Answer:
        self.images += len(walks)
        return Answer(
            *ask(self.model_fn, walks.pixels, lambda outputs: method.loss(outputs, walks, self.loss_fn), gradient)
        )

    def _predict(self, pixels: Tensor) -> None:
        """What the reference computes once more, and is known here."""
        self.images += len(pixels)
        self.model_fn(pixels)
