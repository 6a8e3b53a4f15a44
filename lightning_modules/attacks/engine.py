"""Slot scheduling: an attack method over a stream of samples, with as many of them in the batch as there are slots."""

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Generic

import torch
from torch import Tensor

from lightning_modules.attacks.attack import AskFn, FallenFn, LossFn, ModelFn, ask, zero_share
from lightning_modules.attacks.method import Answer, Method, W
from lightning_modules.attacks.outcome import Outcome, Strongest
from lightning_modules.attacks.places import Places, Watch
from lightning_modules.attacks.walks import Samples

# Decisions need a number on the host. There a synchronisation drains the queue of an accelerator; a CPU has none.
_INTERVAL = {"cpu": 1}
_ACCELERATOR_INTERVAL = 5


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
        self.places = Places(method, slots, stage)
        self.queries = 0  # images that the model was asked about
        self._strongest = Strongest()

    def push(self, samples: Samples) -> list[Outcome]:
        """Takes samples in; returns those that left meanwhile, in the order of leaving."""
        return list(self.flow(samples, finish=False))

    def finish(self) -> list[Outcome]:
        """Works until no sample is left."""
        return list(self.flow())

    def flow(self, samples: Samples | None = None, finish: bool = True) -> Iterator[Outcome]:
        """`push` and `finish`, yielding each outcome as soon as it is known."""
        if samples is not None and len(samples):
            self.places.waiting.append(samples)
        while self.places.held >= (1 if finish else self.slots):
            yield from self.work()
        self.places.fill()

    def drain(self) -> Iterator[Outcome]:
        """Works until no walk is left, and takes in nobody who waits."""
        waiting, self.places.waiting = self.places.waiting, deque()
        yield from self.flow()
        self.places.waiting = waiting

    @torch.no_grad()
    def work(self) -> Iterator[Outcome]:
        """Questions up to the next decision, and who leaves by it. Some sample must be inside."""
        self.places.fill()
        walks, _ = self.places.state
        rounds = _INTERVAL.get(walks.pixels.device.type, _ACCELERATOR_INTERVAL)
        for gradient in self.method.needs_gradient * rounds:
            if max(self.places.ages) < self.method.queries:
                self._query(gradient)
        yield from self._decide()

    def _query(self, gradient: bool) -> None:
        """One question about every walk, and what follows from the answer."""
        walks, watch = self.places.state
        last = all(age == self.method.queries - 1 for age in self.places.ages)
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
        if answer.gradient is not None and 0 in self.places.ages:
            fresh = torch.tensor([age == 0 for age in self.places.ages], device=watch.row.device) & (watch.trial == 0)
            watch.zero_gradient = torch.where(fresh, zero_share(answer.gradient), watch.zero_gradient)
        self.method.advance(walks, answer)
        self.places.ages = [age + 1 for age in self.places.ages]

    def _judge(self, walks: W, watch: Watch, outputs: Tensor) -> None:
        assert self.fallen_fn is not None
        fell = self.fallen_fn(outputs, walks.target) & ~watch.candidate
        inside = self.method.inside(walks)
        fell = fell & ~self.method.over(walks) if inside is None else fell & inside & ~self.method.over(walks)
        torch.where(fell.view(-1, 1, 1, 1), walks.pixels, watch.found, out=watch.found)
        watch.broken = torch.where(fell, outputs.isnan().any(1), watch.broken)
        watch.candidate = watch.candidate | fell

    def _decide(self) -> Iterator[Outcome]:
        """Who leaves, and who is tried again. The one synchronisation."""
        walks, watch = self.places.state
        self._confirm(walks, watch)
        more = watch.trial + 1 < self.method.trials(watch.outputs.shape[1])
        candidate, ended, again = torch.stack([watch.candidate, self.method.over(walks), more]).tolist()
        fallen = [place for place, fell in enumerate(candidate) if fell]
        over = [
            place
            for place, age in enumerate(self.places.ages)
            if not candidate[place] and (ended[place] or age >= self.method.queries)
        ]
        standing = [place for place in over if not again[place]]
        self.places.left = fallen + standing
        for places in self.places.parts(fallen):
            yield self._outcome(places, fell=True)
        for places in self.places.parts(standing):
            yield self._outcome(places, fell=False)
        for places in self.places.parts([place for place in over if again[place]]):
            self._try_again(places)

    def _confirm(self, walks: W, watch: Watch) -> None:
        if self.confirm_fn is None or self.fallen_fn is None:
            return
        rows = watch.candidate.nonzero().squeeze(1)
        if len(rows):
            outputs = self.confirm_fn(watch.found[rows])
            watch.candidate = watch.candidate.index_copy(0, rows, self.fallen_fn(outputs, walks.target[rows]))

    def _outcome(self, places: Sequence[int], fell: bool) -> Outcome:
        """What became of the samples at these places, of which all fell or none."""
        walks, watch = self.places.state
        rows = self.places.rows(places)
        fallen, (best, losses) = torch.full_like(rows, fell, dtype=torch.bool), self.method.best(walks)
        outcome = Outcome(
            **vars(self.places.samples(rows, trial=torch.zeros_like(rows))),
            pixels=(watch.found if fell else best)[rows],
            fallen=fallen,
            broken=watch.broken[rows] & fallen,
            zero_gradient=watch.zero_gradient[rows],
            stage=torch.full_like(rows, self.stage if fell else -1),
        )
        self._strongest.recall(outcome, losses[rows])
        return outcome

    def _try_again(self, places: Sequence[int]) -> None:
        """The next trial of samples that have one, in their place."""
        walks, watch = self.places.state
        rows = self.places.rows(places)
        if self.stage == 0:  # of later methods, nobody asks for what a survivor looked like
            best, losses = self.method.best(walks)
            self._strongest.remember(watch.row[rows], best[rows], losses[rows], watch.zero_gradient[rows])
        self.places.put(places, self.places.samples(rows, watch.trial[rows] + 1))
