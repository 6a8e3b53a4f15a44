"""Attacks in a row, as AutoAttack has it: each works on the samples that the ones before left standing."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lightning_modules.attacks.attack import Adversarial, FallenFn, LossFn, ModelFn, ask, check_mode
from lightning_modules.attacks.engine import Engine
from lightning_modules.attacks.expectation import Expectation
from lightning_modules.attacks.method import Method
from lightning_modules.attacks.outcome import Outcome
from lightning_modules.attacks.walks import Samples, take


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

    The survivors of the first are collected until they fill the slots. Then its walks are brought to their end, and the
    survivors go through the others together, engine after engine. So one engine at a time has walks, which are several
    images each, and the model sees full batches in the first and, but for those that fall on the way, in the others.

    Losses of different methods do not compare: a sample that no engine fells keeps the pixels of the first.
    """

    def __init__(self, engines: list[Engine[Any]]) -> None:
        self.first, self.later = engines[0], engines[1:]
        self._survivors: deque[Samples] = deque()  # of the first
        self._found: dict[int, _Found] = {}  # by the number of samples that survived the first

    @property
    def queries(self) -> int:
        """Images that the model was asked about."""
        return sum(engine.queries for engine in (self.first, *self.later))

    def push(self, samples: Samples) -> list[Outcome]:
        """Takes samples in, with numbers that are not under attack already; returns those that left meanwhile."""
        return list(self.flow(samples))

    def finish(self) -> list[Outcome]:
        """Works until no sample is left, engine by engine."""
        return list(self.flow())

    def flow(self, samples: Samples | None = None) -> Iterator[Outcome]:
        """`push`, or `finish` without samples; yields each outcome as soon as it is known."""
        if samples is not None and len(samples):
            self.first.places.waiting.append(samples)
        while self.first.places.held >= (1 if samples is None else self.first.slots):
            yield from self._sift(self.first.work())
            if sum(map(len, self._survivors)) >= self.first.slots:
                yield from self._go_on()
        while samples is None and self._survivors:
            yield from self._go_on()
        self.first.places.fill()

    def _sift(self, outcomes: Iterator[Outcome]) -> Iterator[Outcome]:
        """Of the first engine's outcomes those that are final."""
        for outcome in outcomes:
            if not self.later or bool(outcome.fallen.all()):
                yield outcome
                continue
            self._survivors.append(outcome.samples)
            for number, *found in zip(outcome.row.tolist(), outcome.pixels, outcome.zero_gradient, strict=True):
                self._found[number] = _Found(*(each.clone() for each in found))

    def _go_on(self) -> Iterator[Outcome]:
        """As many survivors as there are slots go through the later engines."""
        yield from self._sift(self.first.drain())
        together = [take(self._survivors, self.first.slots)]
        for engine in self.later:
            engine.places.waiting.extend(together)
            together = []
            for outcome in engine.flow():
                if bool(outcome.fallen.all()) or engine is self.later[-1]:
                    yield self._settled(outcome)
                else:
                    together.append(outcome.samples)

    def _settled(self, outcome: Outcome) -> Outcome:
        """The outcome with the first engine's share of zero gradients, and its pixels where no engine succeeded."""
        for place, (number, fell) in enumerate(zip(outcome.row.tolist(), outcome.fallen.tolist(), strict=True)):
            found = self._found.pop(number)
            outcome.zero_gradient[place] = found.zero_gradient
            if not fell:
                outcome.pixels[place] = found.pixels
        return outcome


class _Found(NamedTuple):
    """What the first engine found for a sample that it did not fell, in memory of its own, so that a batch does not
    outlive its last sample: pixels (C, H, W) and the share of zero gradients ()."""

    pixels: Tensor
    zero_gradient: Tensor
