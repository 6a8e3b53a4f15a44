"""Slot scheduling: an attack method over a stream of samples, with as many of them in the batch as there are slots."""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Generic, NamedTuple

import torch
from torch import Tensor

from lightning_modules.attacks import noise
from lightning_modules.attacks.attack import AskFn, FallenFn, LossFn, ModelFn, ask, zero_share
from lightning_modules.attacks.method import Answer, Method, W
from lightning_modules.attacks.walks import Rows, Samples, take

# Decisions need a number on the host. There a synchronisation drains the queue of an accelerator; a CPU has none.
_INTERVAL = {"cpu": 1}
_ACCELERATOR_INTERVAL = 5

_PART = 8  # samples change places in parts of the slots, so that what is there twice meanwhile takes little memory


@dataclass
class Outcome(Samples):
    """Samples that left the engine, and what became of them. R samples."""

    pixels: Tensor  # float32 (R, C, H, W): where the sample fell, or else the strongest found
    fallen: Tensor  # bool (R,)
    broken: Tensor  # bool (R,): it fell because an output was not a number
    zero_gradient: Tensor  # float32 (R,): see `Adversarial`; 0 from a method that asks for no gradient
    stage: Tensor  # int64 (R,): number of the method that felled it, -1 where none did

    @property
    def samples(self) -> Samples:
        """As they came in."""
        return Samples(**{each.name: getattr(self, each.name) for each in fields(Samples)})


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


class _Strongest(NamedTuple):
    """Of a sample's trials so far: the pixels (C, H, W) of highest loss, and the first share of zero gradients."""

    loss: float
    pixels: Tensor
    zero_gradient: float


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
            stage: number of the method in a sequence; each draws random numbers of its own.
            ask_fn: how the model is asked; `Expectation` for one whose answers are random.
        """
        self.method, self.model_fn, self.loss_fn, self.fallen_fn = method, model_fn, loss_fn, fallen_fn
        self.slots, self.confirm_fn, self.stage, self.ask_fn = slots, confirm_fn, stage, ask_fn
        self.waiting: deque[Samples] = deque()
        self.queries = 0  # images that the model was asked about
        self._walks: W | None = None
        self._watch: _Watch | None = None
        self._ages: list[int] = []  # queries of each walk, known without asking the device
        self._free: list[int] = []  # places whose sample has left
        self._strongest: dict[int, _Strongest] = {}  # by the number of samples that are tried again

    @property
    def held(self) -> int:
        """Samples inside, those that wait included."""
        return len(self._ages) - len(self._free) + sum(map(len, self.waiting))

    def push(self, samples: Samples) -> list[Outcome]:
        """Takes samples in; returns those that left meanwhile, in the order of leaving."""
        return list(self.flow(samples, finish=False))

    def finish(self) -> list[Outcome]:
        """Works until no sample is left."""
        return list(self.flow())

    def flow(self, samples: Samples | None = None, finish: bool = True) -> Iterator[Outcome]:
        """`push` and `finish`, yielding each outcome as soon as it is known."""
        if samples is not None and len(samples):
            self.waiting.append(samples)
        while self.held >= (1 if finish else self.slots):
            yield from self.work()
        self.fill()

    def drain(self) -> Iterator[Outcome]:
        """Works until no walk is left, and takes in nobody who waits."""
        waiting, self.waiting = self.waiting, deque()
        yield from self.flow()
        self.waiting = waiting

    @torch.no_grad()
    def work(self) -> Iterator[Outcome]:
        """Questions up to the next decision, and who leaves by it. Some sample must be inside."""
        self.fill()
        walks, _ = self._state()
        rounds = _INTERVAL.get(walks.pixels.device.type, _ACCELERATOR_INTERVAL)
        for gradient in self.method.needs_gradient * rounds:
            if max(self._ages) < self.method.queries:
                self._query(gradient)
        yield from self._decide()

    def _state(self) -> tuple[W, _Watch]:
        assert self._walks is not None
        assert self._watch is not None
        return self._walks, self._watch

    def fill(self) -> None:
        """Samples that wait take the places of those that left, then further slots; what is left over is given up."""
        if len(self._free) == len(self._ages):
            self._close()
        while self._free and self.waiting:
            samples = take(self.waiting, min(len(self._free), self._part))
            self._put([self._free.pop() for _ in range(len(samples))], samples)
        self._close()
        if self.waiting and (room := self.slots - len(self._ages)):
            self._enter(take(self.waiting, room))

    def _put(self, places: Sequence[int], samples: Samples) -> None:
        """New walks in the place of others, so that it costs what it changes."""
        walks, watch = self._state()
        rows = torch.tensor(places, device=watch.row.device)
        walks.put(rows, self._begin(samples))
        watch.put(rows, self._note(samples))
        for place in places:
            self._ages[place] = 0

    def _close(self) -> None:
        """Gives up the places whose samples have left."""
        if not self._free:
            return
        stay = sorted(set(range(len(self._ages))).difference(self._free))
        self._ages, self._free = [self._ages[place] for place in stay], []
        if not stay:
            self._walks = self._watch = None
            return
        walks, watch = self._state()
        rows = torch.tensor(stay, device=watch.row.device)
        walks.keep(rows)
        watch.keep(rows)

    def _enter(self, samples: Samples) -> None:
        """New walks in slots that nobody had."""
        walks, watch = self._begin(samples), self._note(samples)
        if self._walks is None or self._watch is None:
            self._walks, self._watch = walks, watch
        else:
            self._walks.extend(walks)
            self._watch.extend(watch)
        self._ages += [0] * len(samples)

    def _begin(self, samples: Samples) -> W:
        return self.method.begin(replace(samples, seeds=noise.derive(samples.seeds, self.stage)))

    def _note(self, samples: Samples) -> _Watch:
        no = torch.zeros_like(samples.row, dtype=torch.bool)
        nothing, found = samples.clean.new_zeros(len(samples)), samples.clean.clone()
        return _Watch(samples.row, samples.seeds, samples.trial, samples.outputs, no, no, nothing, found)

    def _query(self, gradient: bool) -> None:
        """One question about every walk, and what follows from the answer."""
        walks, watch = self._state()
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
            watch.zero_gradient = torch.where(fresh, zero_share(answer.gradient), watch.zero_gradient)
        self.method.advance(walks, answer)
        self._ages = [age + 1 for age in self._ages]

    def _judge(self, walks: W, watch: _Watch, outputs: Tensor) -> None:
        assert self.fallen_fn is not None
        fell = self.fallen_fn(outputs, walks.target) & ~watch.candidate
        inside = self.method.inside(walks)
        fell = fell & ~self.method.over(walks) if inside is None else fell & inside & ~self.method.over(walks)
        torch.where(fell.view(-1, 1, 1, 1), walks.pixels, watch.found, out=watch.found)
        watch.broken = torch.where(fell, outputs.isnan().any(1), watch.broken)
        watch.candidate = watch.candidate | fell

    def _decide(self) -> Iterator[Outcome]:
        """Who leaves, and who is tried again. The one synchronisation."""
        walks, watch = self._state()
        self._confirm(walks, watch)
        more = watch.trial + 1 < self.method.trials(watch.outputs.shape[1])
        candidate, ended, again = torch.stack([watch.candidate, self.method.over(walks), more]).tolist()
        fallen = [place for place, fell in enumerate(candidate) if fell]
        over = [
            place
            for place, age in enumerate(self._ages)
            if not candidate[place] and (ended[place] or age >= self.method.queries)
        ]
        standing = [place for place in over if not again[place]]
        self._free = fallen + standing
        for places in self._parts(fallen):
            yield self._outcome(places, fell=True)
        for places in self._parts(standing):
            yield self._outcome(places, fell=False)
        for places in self._parts([place for place in over if again[place]]):
            self._try_again(places)

    @property
    def _part(self) -> int:
        return max(self.slots // _PART, 1)

    def _parts(self, places: Sequence[int]) -> Iterator[Sequence[int]]:
        yield from (places[first : first + self._part] for first in range(0, len(places), self._part))

    def _confirm(self, walks: W, watch: _Watch) -> None:
        if self.confirm_fn is None or self.fallen_fn is None:
            return
        rows = watch.candidate.nonzero().squeeze(1)
        if len(rows):
            outputs = self.confirm_fn(watch.found[rows])
            watch.candidate = watch.candidate.index_copy(0, rows, self.fallen_fn(outputs, walks.target[rows]))

    def _samples(self, rows: Tensor, trial: Tensor) -> Samples:
        walks, watch = self._state()
        return Samples(
            watch.row[rows], walks.clean[rows], walks.target[rows], watch.outputs[rows], watch.seeds[rows], trial
        )

    def _outcome(self, places: Sequence[int], fell: bool) -> Outcome:
        """What became of the samples at these places, of which all fell or none."""
        walks, watch = self._state()
        rows = torch.tensor(places, device=watch.row.device)
        fallen, (best, losses) = torch.full_like(rows, fell, dtype=torch.bool), self.method.best(walks)
        outcome = Outcome(
            **vars(self._samples(rows, trial=torch.zeros_like(rows))),
            pixels=(watch.found if fell else best)[rows],
            fallen=fallen,
            broken=watch.broken[rows] & fallen,
            zero_gradient=watch.zero_gradient[rows],
            stage=torch.full_like(rows, self.stage if fell else -1),
        )
        if self._strongest:
            self._recall(outcome, losses[rows], fell)
        return outcome

    def _recall(self, outcome: Outcome, losses: Tensor, fell: bool) -> None:
        """Puts in what earlier trials found, where the last had no success."""
        for place, (number, loss) in enumerate(zip(outcome.row.tolist(), losses.tolist(), strict=True)):
            before = self._strongest.pop(number, None)
            if before is not None:
                outcome.zero_gradient[place] = before.zero_gradient
                if not fell and loss <= before.loss:
                    outcome.pixels[place] = before.pixels

    def _try_again(self, places: Sequence[int]) -> None:
        """The next trial of samples that have one, in their place."""
        _, watch = self._state()
        rows = torch.tensor(places, device=watch.row.device)
        if self.stage == 0:  # of later methods, nobody asks for what a survivor looked like
            self._remember(rows)
        self._put(places, self._samples(rows, watch.trial[rows] + 1))

    def _remember(self, rows: Tensor) -> None:
        walks, watch = self._state()
        best, losses = self.method.best(walks)
        columns = (each.tolist() for each in (rows, watch.row[rows], losses[rows], watch.zero_gradient[rows]))
        for place, number, loss, share in zip(*columns, strict=True):
            before = self._strongest.get(number)
            if before is None:
                self._strongest[number] = _Strongest(loss, best[place].clone(), share)
            elif not loss <= before.loss:
                self._strongest[number] = before._replace(loss=loss, pixels=best[place].clone())
