"""Slot scheduling: an attack method over a stream of samples, with as many of them in the batch as there are slots."""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Generic

import torch
from torch import Tensor

from lightning_modules.attacks.attack import AskFn, FallenFn, LossFn, ModelFn, ask
from lightning_modules.attacks.method import Answer, Method, W
from lightning_modules.attacks.walks import Rows, Samples

# Decisions need a number on the host. There a synchronisation drains the queue of an accelerator; a CPU has none.
_INTERVAL = {"cpu": 1}
_ACCELERATOR_INTERVAL = 5


@dataclass
class Outcome(Rows):
    """Samples that left the engine. R samples."""

    pixels: Tensor  # float32 (R, C, H, W): where the sample fell, or else the strongest found
    fallen: Tensor  # bool (R,)
    broken: Tensor  # bool (R,): it fell because an output was not a number
    zero_gradient: Tensor  # float32 (R,): see `Adversarial`; 0 from a method that asks for no gradient
    stage: Tensor  # int64 (R,): number of the method that felled it, -1 where none did


@dataclass
class _Watch(Rows):
    """What the engine notes of each walk, beside the method's own state."""

    seeds: Tensor
    trial: Tensor
    outputs: Tensor
    candidate: Tensor  # bool (B,): has been seen to fall since the last decision
    broken: Tensor
    zero_gradient: Tensor
    found: Tensor  # float32 (B, C, H, W): where it was seen to fall


class Engine(Generic[W]):
    """Keeps the slots full: a sample leaves at its first success, or when all its trials have ended, and the next one
    takes its place. Since a walk depends on its own sample only, the set of the fallen is that of the full schedule.

    `push` works as long as there are samples for every slot; `finish` works off the rest.
    """

    def __init__(
        self,
        method: Method[W],
        model_fn: ModelFn,
        loss_fn: LossFn,
        fallen_fn: FallenFn | None,
        slots: int,
        confirm_fn: ModelFn | None = None,
        stage: int = 0,
        ask_fn: AskFn = ask,
    ) -> None:
        """
        Args:
            fallen_fn: None works through all trials of every sample, and returns the strongest pixels.
            slots: largest batch of the model.
            confirm_fn: a slower, more precise model that must agree before a success counts; without its consent the
                walk goes on as if nothing had happened.
            stage: number of the method in a sequence.
            ask_fn: how the model is asked; `Expectation` for one whose answers are random.
        """
        self.method, self.model_fn, self.loss_fn, self.fallen_fn = method, model_fn, loss_fn, fallen_fn
        self.slots, self.confirm_fn, self.stage, self.ask_fn = slots, confirm_fn, stage, ask_fn
        self.waiting: deque[Samples] = deque()
        self.queries = 0  # images that the model was asked about
        self._walks: W | None = None
        self._watch: _Watch | None = None
        self._ages: list[int] = []  # queries of each walk, known without asking the device
        self._strongest: dict[int, tuple[float, Tensor, float]] = {}  # of samples between two trials

    def push(self, samples: Samples) -> list[Outcome]:
        """Takes samples in; returns those that left meanwhile, in the order of leaving."""
        return list(self.flow(samples, finish=False))

    def finish(self) -> list[Outcome]:
        """Works until no sample is left."""
        return list(self.flow())

    @torch.no_grad()
    def flow(self, samples: Samples | None = None, finish: bool = True) -> Iterator[Outcome]:
        """`push` and `finish`, yielding each outcome as soon as it is known."""
        if samples is not None and len(samples):
            self.waiting.append(samples)
        least = 1 if finish else self.slots
        while len(self._ages) + sum(map(len, self.waiting)) >= least:
            self._fill()
            assert self._walks is not None
            rounds = _INTERVAL.get(self._walks.pixels.device.type, _ACCELERATOR_INTERVAL)
            for gradient in self.method.needs_gradient * rounds:
                if max(self._ages) < self.method.queries:
                    self._query(gradient)
            yield from self._decide()

    def _fill(self) -> None:
        """New walks in slots that nobody holds."""
        while self.waiting and (free := self.slots - len(self._ages)):
            self._enter(self._take(free))

    def _take(self, most: int) -> Samples:
        """The next samples, as many as wait together; a copy: `put` writes into walks that began as its tensors."""
        samples = self.waiting.popleft()
        places = torch.arange(len(samples), device=samples.row.device)
        if len(samples) > most:
            self.waiting.appendleft(samples.select(places[most:]))
        return samples.select(places[:most])

    def _enter(self, samples: Samples) -> None:
        walks, watch = self.method.begin(samples), self._note(samples)
        self._walks = walks if self._walks is None else type(walks).join([self._walks, walks])
        self._watch = watch if self._watch is None else _Watch.join([self._watch, watch])
        self._ages += [0] * len(samples)

    def _note(self, samples: Samples) -> _Watch:
        no = torch.zeros_like(samples.row, dtype=torch.bool)
        nothing = samples.clean.new_zeros(len(samples))
        return _Watch(samples.row, samples.seeds, samples.trial, samples.outputs, no, no, nothing, samples.clean)

    def _query(self, gradient: bool) -> None:
        """One question about every walk, and what follows from the answer."""
        walks, watch = self._walks, self._watch
        assert walks is not None
        assert watch is not None
        last = all(age == self.method.queries - 1 for age in self._ages)
        answer = Answer(
            *self.ask_fn(
                self.model_fn,
                walks.pixels,
                lambda outputs: self.method.loss(outputs, walks, self.loss_fn),
                gradient=gradient and not last,
            )
        )
        self.queries += len(walks)
        if self.fallen_fn is not None:
            self._judge(walks, watch, answer.outputs)
        if answer.gradient is not None and 0 in self._ages:
            fresh = torch.tensor([age == 0 for age in self._ages], device=watch.row.device) & (watch.trial == 0)
            share = (answer.gradient == 0).flatten(1).float().mean(1)
            watch.zero_gradient = torch.where(fresh, share, watch.zero_gradient)
        self.method.advance(walks, answer)
        self._ages = [age + 1 for age in self._ages]

    def _judge(self, walks: W, watch: _Watch, outputs: Tensor) -> None:
        assert self.fallen_fn is not None
        fell = self.fallen_fn(outputs, walks.target) & ~watch.candidate
        inside = self.method.inside(walks)
        fell = fell & ~self.method.over(walks) if inside is None else fell & inside & ~self.method.over(walks)
        watch.found = torch.where(fell.view(-1, 1, 1, 1), walks.pixels, watch.found)
        watch.broken = torch.where(fell, outputs.isnan().any(1), watch.broken)
        watch.candidate = watch.candidate | fell

    def _decide(self) -> list[Outcome]:
        """Who leaves, who is tried again, and who takes their slots. The one synchronisation."""
        walks, watch = self._walks, self._watch
        assert walks is not None
        assert watch is not None
        self._confirm(walks, watch)
        ended = self.method.over(walks)
        state = torch.stack([watch.candidate, ended]).tolist()
        exhausted = [age >= self.method.queries for age in self._ages]
        fallen = [place for place, fell in enumerate(state[0]) if fell]
        over = [place for place in range(len(walks)) if not state[0][place] and (state[1][place] or exhausted[place])]
        outcomes = [self._fallen(watch, fallen)] if fallen else []
        if over:
            outcomes += self._ended(walks, watch, over)
        if fallen or over:
            self._release(sorted(fallen + over))
        return outcomes

    def _confirm(self, walks: W, watch: _Watch) -> None:
        if self.confirm_fn is None or self.fallen_fn is None:
            return
        rows = watch.candidate.nonzero().squeeze(1)
        if len(rows):
            outputs = self.confirm_fn(watch.found[rows])
            watch.candidate = watch.candidate.index_copy(0, rows, self.fallen_fn(outputs, walks.target[rows]))

    def _fallen(self, watch: _Watch, places: Sequence[int]) -> Outcome:
        rows = torch.tensor(places, device=watch.row.device)
        kept = watch.select(rows)
        zero_gradient = kept.zero_gradient.clone()
        for place, number in enumerate(kept.row.tolist()):
            if number in self._strongest:
                zero_gradient[place] = self._strongest.pop(number)[2]
        stage = torch.full_like(kept.row, self.stage)
        return Outcome(kept.row, kept.found, kept.candidate, kept.broken, zero_gradient, stage)

    def _ended(self, walks: W, watch: _Watch, places: Sequence[int]) -> list[Outcome]:
        """Trials that ended without success: the next trial where there is one, or else the strongest pixels."""
        rows = torch.tensor(places, device=watch.row.device)
        done, noted = walks.select(rows), watch.select(rows)
        pixels, losses = self.method.best(done)
        trials = self.method.trials(noted.outputs.shape[1])
        again = noted.trial + 1 < trials
        if trials > 1 and self.stage == 0:  # of later ones, nobody asks for what a survivor looked like
            pixels, zero_gradient = self._stronger(noted, pixels, losses, again)
        else:
            zero_gradient = noted.zero_gradient
        if bool(again.any()):
            self._try_again(done, noted, again)
        stays = ~again
        if not bool(stays.any()):
            return []
        no = torch.zeros_like(again)
        outcome = Outcome(noted.row, pixels, no, no, zero_gradient, torch.full_like(noted.row, -1))
        return [outcome.select(stays)]

    def _try_again(self, done: W, noted: _Watch, again: Tensor) -> None:
        samples = Samples(noted.row, done.clean, done.target, noted.outputs, noted.seeds, noted.trial + 1)
        self.waiting.appendleft(samples.select(again))

    def _stronger(self, noted: _Watch, pixels: Tensor, losses: Tensor, again: Tensor) -> tuple[Tensor, Tensor]:
        """Over the trials so far: the pixels of highest loss, and the first share of zero gradients."""
        pixels, shares = pixels.clone(), noted.zero_gradient.tolist()
        numbers, values, again_ = noted.row.tolist(), losses.tolist(), again.tolist()
        for place, number in enumerate(numbers):
            before = self._strongest.pop(number, None)
            if before is not None:
                shares[place] = before[2]
                if values[place] <= before[0]:
                    values[place], pixels[place] = before[0], before[1]
            if again_[place]:
                self._strongest[number] = (values[place], pixels[place].clone(), shares[place])
        return pixels, noted.zero_gradient.new_tensor(shares)

    def _release(self, places: Sequence[int]) -> None:
        """Frees slots: the next samples are put in their place, so that a decision costs what it changes."""
        walks, watch = self._walks, self._watch
        assert walks is not None
        assert watch is not None
        free = list(places)
        while free and self.waiting:
            samples = self._take(len(free))
            now, free = free[: len(samples)], free[len(samples) :]
            rows = torch.tensor(now, device=watch.row.device)
            walks.put(rows, self.method.begin(samples))
            watch.put(rows, self._note(samples))
            for place in now:
                self._ages[place] = 0
        if free:
            self._close(set(free))

    def _close(self, free: set[int]) -> None:
        """Gives up slots that nobody waits for."""
        assert self._walks is not None
        assert self._watch is not None
        stay = [place for place in range(len(self._ages)) if place not in free]
        rows = torch.tensor(stay, device=self._watch.row.device, dtype=torch.int64)
        self._ages = [self._ages[place] for place in stay]
        self._walks = self._walks.select(rows) if stay else None
        self._watch = self._watch.select(rows) if stay else None
