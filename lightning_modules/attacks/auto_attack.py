"""Attacks in a row, as AutoAttack has it: each works on the samples that the ones before left standing."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from lightning_modules.attacks import noise
from lightning_modules.attacks.attack import Adversarial, FallenFn, LossFn, ModelFn, ask, check_mode
from lightning_modules.attacks.engine import Engine, Outcome
from lightning_modules.attacks.expectation import Expectation
from lightning_modules.attacks.method import Method
from lightning_modules.attacks.walks import Samples


@dataclass(frozen=True)
class AutoAttack:
    """Methods in order (Croce & Hein 2020, sec. 6). See `Attack` for the call, on one batch.

    Who stands is known only with `fallen`; without it the first method alone runs, with all its trials.

    draws  evaluations of a model with random answers for one gradient, see `Expectation`. With more than one, a success
           must show again in a further evaluation, as in AutoAttack's `rand`; the reference looks again once, at the
           end, where this looks at each success and goes on after a lucky one.
    """

    methods: tuple[Method[Any], ...]
    draws: int = 1

    @torch.no_grad()
    def __call__(
        self,
        model_fn: ModelFn,
        pixels: Tensor,
        target: Tensor,
        loss_fn: LossFn,
        seeds: Tensor,
        fallen: FallenFn | None = None,
    ) -> Adversarial:
        clean = pixels.detach().float()
        stream = self.stream(model_fn, loss_fn, fallen, slots=max(len(clean), 1))
        row = torch.arange(len(clean), device=clean.device)
        outputs = model_fn(clean) if any(method.targeted for method in self.methods) else clean.new_zeros(len(clean), 1)
        samples = Samples(row, clean, target, outputs, seeds, torch.zeros_like(row))
        found = [*stream.push(samples), *stream.finish()]
        if not found:
            return Adversarial(clean, clean.new_zeros(0), row.bool())
        outcome = Outcome.join(found)
        outcome = outcome.select(outcome.row.argsort())
        return Adversarial(outcome.pixels, outcome.zero_gradient, outcome.fallen)

    def stream(
        self,
        model_fn: ModelFn,
        loss_fn: LossFn,
        fallen_fn: FallenFn | None,
        slots: int,
        confirm_fn: ModelFn | None = None,
    ) -> "Stream":
        """The methods over samples that arrive bit by bit; see `Engine` for the arguments.

        Raises:
            ConfigError: see `check_mode`.
        """
        for each in (model_fn, confirm_fn):
            if each is not None:
                check_mode(each)
        methods = self.methods if fallen_fn is not None else self.methods[:1]
        ask_fn = ask if self.draws == 1 else Expectation(self.draws)
        confirm_fn = confirm_fn or (model_fn if self.draws > 1 else None)
        return Stream(
            [
                Engine(method, model_fn, loss_fn, fallen_fn, slots, confirm_fn, stage, ask_fn)
                for stage, method in enumerate(methods)
            ]
        )


class Stream:
    """Engines in a row: the survivors of one are the samples of the next.

    Each stage has slots of its own and waits until it can fill them, so that the model sees full batches until the
    samples run out. Losses of different methods do not compare: a sample that no stage fells keeps the pixels of the
    first.
    """

    def __init__(self, engines: list[Engine[Any]]) -> None:
        self.engines = engines
        self._entered: dict[int, Samples] = {}  # samples under attack, by number
        self._first: dict[int, Outcome] = {}  # what the first stage found for samples that are in a later one

    @property
    def queries(self) -> int:
        """Images that the model was asked about."""
        return sum(engine.queries for engine in self.engines)

    def push(self, samples: Samples) -> list[Outcome]:
        """Takes samples in, with numbers that are not under attack already; returns those that left meanwhile."""
        return list(self.flow(samples))

    def finish(self) -> list[Outcome]:
        """Works until no sample is left, stage by stage."""
        return list(self.flow())

    def flow(self, samples: Samples | None = None) -> Iterator[Outcome]:
        """`push`, or `finish` without samples; yields each outcome as soon as it is known."""
        if samples is not None and len(self.engines) > 1:
            self._entered |= dict(zip(samples.row.tolist(), _singles(samples), strict=True))
        for stage, engine in enumerate(self.engines):
            new = self._own(samples, 0) if samples is not None and stage == 0 else None
            for outcome in engine.flow(new, finish=samples is None):
                yield from self._sort_out(stage, outcome)

    def _own(self, samples: Samples, stage: int) -> Samples:
        return replace(samples, seeds=noise.derive(samples.seeds, stage))

    def _sort_out(self, stage: int, outcome: Outcome) -> Iterator[Outcome]:
        """Of a stage's outcome: the fallen leave, and so does everyone after the last; the others wait for the next."""
        if stage + 1 == len(self.engines):
            yield self._settled(outcome)
            return
        if bool(outcome.fallen.any()):
            yield self._settled(outcome.select(outcome.fallen))
        standing = outcome.select(~outcome.fallen)
        if len(standing):
            self._go_on(stage, standing)

    def _go_on(self, stage: int, standing: Outcome) -> None:
        numbers = standing.row.tolist()
        if stage == 0:
            self._first |= dict(zip(numbers, _singles(standing), strict=True))
        samples = Samples.join([self._entered[number] for number in numbers])
        self.engines[stage + 1].waiting.append(self._own(samples, stage + 1))

    def _settled(self, outcome: Outcome) -> Outcome:
        """The outcome with the first stage's share of zero gradients, and its pixels where no stage succeeded."""
        pixels, shares = list(outcome.pixels), list(outcome.zero_gradient)
        for place, (number, fell) in enumerate(zip(outcome.row.tolist(), outcome.fallen.tolist(), strict=True)):
            self._entered.pop(number, None)
            first = self._first.pop(number, None)
            if first is not None:
                shares[place] = first.zero_gradient[0]
                pixels[place] = pixels[place] if fell else first.pixels[0]
        return replace(outcome, pixels=torch.stack(pixels), zero_gradient=torch.stack(shares))


def _singles(rows: Any) -> list[Any]:
    """One by one, in memory of their own, so that a batch does not outlive its last sample."""
    return [rows.select(place[None]) for place in torch.arange(len(rows), device=rows.row.device)]
