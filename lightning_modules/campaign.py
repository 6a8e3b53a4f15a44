"""An attack on all samples of a probe: each is settled once, put down in the ledger, and not attacked again."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from configs.schema.attack import Attack as AttackSetting
from lightning_modules import attacks
from lightning_modules.attacks import (
    EMBEDDING_LOSSES,
    LOSSES,
    Adversarial,
    Attack,
    AutoAttack,
    ModelFn,
    Outcome,
    Samples,
    Stream,
    misclassified,
    noise,
)
from lightning_modules.backbones.quick import quick_embedding
from lightning_modules.ledger import RECORD, Array, Ledger
from lightning_modules.probes import Terms
from lightning_modules.zero_shot import CleanSimilarities, best

Batch = dict[str, Any]
Settled = Callable[[Array, bool], None]
"""Is told RECORDs (N,), and whether they are news: False for those of an earlier attempt."""


@dataclass(frozen=True)
class Fresh:
    """Samples that nothing is known of. B of them."""

    index: Tensor  # int64 (B,)
    label: Tensor  # int64 (B,)
    pixels: Tensor  # float32 (B, 3, H, W)
    similarities: Tensor  # float32 (B, K)

    @property
    def clean(self) -> Tensor:
        """Predictions (B,) on the clean images."""
        return best(self.similarities)

    def select(self, rows: Tensor) -> "Fresh":
        """The samples at these places, int64 (R,) or bool (B,)."""
        return replace(self, **{name: value[rows] for name, value in vars(self).items()})


class Campaign(ABC):
    """Takes the batches of a probe in, and tells `settled` the RECORD of each sample, now or in a later batch."""

    def __init__(
        self,
        setting: AttackSetting,
        split: str,
        clean: CleanSimilarities,
        ledger: Ledger,
        settled: Settled,
        terms: Terms,
        smaller: Sequence[Ledger] = (),
    ) -> None:
        """
        Args:
            smaller: what is known of the same attack at smaller radii.
        """
        attack = attacks.build(setting)
        assert attack is not None, "a probe without an attack has attack None"
        name = getattr(setting, "loss", "objective")
        self.attack: Attack = attack
        self.loss = (LOSSES | EMBEDDING_LOSSES)["ce" if name == "objective" else name]
        self.split, self.clean, self.ledger, self.settled, self.terms = split, clean, ledger, settled, terms
        self.model = clean.classifier
        self.model_fn = self.model.quick(terms.fast, terms.compiled)
        self.smaller = smaller
        self._pictured: dict[int, Tensor | None] = {}  # index -> clean image, once it was taken in

    def take(self, batch: Batch) -> None:
        """Settles what is known of a batch, and sets about the rest."""
        valid = batch["valid"].nonzero().squeeze(1)
        numbers: list[int] = batch["index"][valid].tolist()
        for number in numbers[: max(self.terms.pictures - len(self._pictured), 0)]:
            self._pictured[number] = None
        known = [number for number in numbers if self._is_known(number)]
        if known:
            self.settled(np.array([self.ledger.known[number] for number in known], RECORD), False)
        new = [place for place, number in enumerate(numbers) if not self._is_known(number)]
        if new:
            self._attack(self._fresh(batch, valid[new]))

    def finish(self) -> None:
        """Settles every sample that is still under attack."""
        self.ledger.close()

    @abstractmethod
    def _attack(self, samples: Fresh) -> None: ...

    def _is_known(self, number: int) -> bool:
        shown = number not in self._pictured or number in self.ledger.pictures
        return number in self.ledger.known and shown

    def _fresh(self, batch: Batch, rows: Tensor) -> Fresh:
        index, pixels = batch["index"][rows], batch["image"][rows]
        for place, number in enumerate(index.tolist()):
            if number in self._pictured:
                self._pictured[number] = pixels[place]
        return Fresh(index, batch["label"][rows], pixels, self.clean(self.split, index, pixels))

    def _seeds(self, index: Tensor) -> Tensor:
        return noise.derive(self.terms.seed, 0, index)

    def _settle(self, pixels: Tensor, **columns: Tensor | Array | bool) -> None:
        """Writes down what is known of some samples, and their adversarial images; then tells it."""
        records = np.zeros(len(pixels), RECORD)
        records["written"], records["stage"] = True, -1
        for name, column in columns.items():
            records[name] = column.cpu().numpy() if isinstance(column, Tensor) else column
        self._show(records, pixels)
        self.ledger.settle(records, pixels)
        self.settled(records, True)

    def _show(self, records: Array, pixels: Tensor) -> None:
        wanted = [place for place, number in enumerate(records["index"].tolist()) if number in self._pictured]
        if not wanted:
            return
        shown = records[wanted]
        clean = [self._pictured[number] for number in shown["index"].tolist()]
        self.ledger.show(
            torch.stack([image for image in clean if image is not None]),
            pixels[wanted],
            index=shown["index"],
            label=shown["label"],
            clean_prediction=shown["clean"],
            adversarial_prediction=self.model.predict(pixels[wanted]).cpu().numpy(),
        )


class FullBudget(Campaign):
    """Spends the whole budget on each image, also where the clean leaf is wrong already, since a wrong leaf may have
    the right ancestor; then an attack of several restarts or methods goes on with the images whose leaf stands."""

    @property
    def _goes_on(self) -> bool:
        return isinstance(self.attack, AutoAttack) or (
            isinstance(self.attack, attacks.PGD) and self.attack.restarts > 1
        )

    def _attack(self, samples: Fresh) -> None:
        seeds = self._seeds(samples.index)
        found = self._spend(samples, seeds)
        pixels, first = found.pixels, self.model.predict(found.pixels)
        last = first
        standing = ((samples.clean == samples.label) & (first == samples.label)).nonzero().squeeze(1)
        if len(standing) and self._goes_on:
            left = samples.select(standing)
            again = self.attack(self.model.logits, left.pixels, left.label, self.loss, seeds[standing], misclassified)
            pixels = pixels.index_copy(0, standing, again.pixels)
            last = first.index_copy(0, standing, self.model.predict(again.pixels))
        answers = torch.stack([samples.clean, first, last], dim=1)
        self._settle(
            pixels,
            index=samples.index,
            label=samples.label,
            clean=samples.clean,
            worst=answers[:, 1:],
            fallen=(answers != samples.label[:, None]).any(1),
            broken=(answers == -1).any(1),
            attacked=True,
            zero_gradient=found.zero_gradient,
        )

    def _spend(self, samples: Fresh, seeds: Tensor) -> Adversarial:
        return self.attack(self.model_fn, samples.pixels, samples.label, self.loss, seeds)


class Labelless(FullBudget):
    """Drives each image's embedding away from where it was; labels have a part in the judgement alone."""

    @property
    def _goes_on(self) -> bool:
        return False  # a restart counts by its loss, and the one with the highest is kept

    @cached_property
    def _embed(self) -> ModelFn:
        return quick_embedding(self.model.backbone, self.terms.fast, self.terms.compiled)

    def _spend(self, samples: Fresh, seeds: Tensor) -> Adversarial:
        with torch.no_grad():
            clean = self._embed(samples.pixels)
        return self.attack(self._embed, samples.pixels, clean, self.loss, seeds)


class Scheduled(Campaign):
    """Keeps the slots of a stream of attacks full. A sample leaves when its leaf falls, so that nothing is known of the
    classes above: they would look better than under the whole budget.

    A sample that fell under the same attack at a smaller radius has fallen.
    """

    attack: AutoAttack

    @cached_property
    def stream(self) -> Stream:
        """The attack over the samples of all batches."""
        confirm_fn = self.model.logits if self.terms.fast else None
        return self.attack.stream(self.model_fn, self.loss, misclassified, self.terms.slots, confirm_fn)

    def finish(self) -> None:
        for outcome in self.stream.flow():
            self._record(outcome)
        super().finish()

    def _attack(self, samples: Fresh) -> None:
        wrong = samples.clean != samples.label
        if bool(wrong.any()):
            self._settle_wrong(samples.select(wrong))
        right = samples.select(~wrong)
        heirs = [self._heir(number) for number in right.index.tolist()]
        fell = torch.tensor([heir is not None for heir in heirs], dtype=torch.bool, device=wrong.device)
        if bool(fell.any()):
            self._inherit(right.select(fell), [heir for heir in heirs if heir is not None])
        if not bool(fell.all()):
            self._push(right.select(~fell))

    def _settle_wrong(self, samples: Fresh) -> None:
        self._settle(
            samples.pixels,
            index=samples.index,
            label=samples.label,
            clean=samples.clean,
            worst=samples.clean[:, None].expand(-1, 2),
            fallen=True,
            broken=samples.clean == -1,
        )

    def _heir(self, number: int) -> Ledger | None:
        """The ledger of a smaller radius at which the sample fell."""
        fell = (ledger for ledger in self.smaller if number in ledger.known and ledger.known[number]["fallen"])
        return next(fell, None)

    def _inherit(self, samples: Fresh, heirs: Sequence[Ledger]) -> None:
        numbers = samples.index.tolist()
        before = np.array([ledger.known[number] for ledger, number in zip(heirs, numbers, strict=True)], RECORD)
        pixels = samples.pixels
        if self.ledger.save is not None:
            kept = [ledger.images([number]) for ledger, number in zip(heirs, numbers, strict=True)]
            pixels = torch.cat(kept).to(pixels.device)
        columns = {name: before[name] for name in ("label", "clean", "worst", "fallen", "broken", "stage")}
        self._settle(pixels, index=samples.index, inherited=True, **columns)

    def _push(self, samples: Fresh) -> None:
        outputs, trial = self.model.scale * samples.similarities, torch.zeros_like(samples.index)
        seeds = self._seeds(samples.index)
        given = Samples(samples.index, samples.pixels.float(), samples.label, outputs, seeds, trial)
        for outcome in self.stream.flow(given):
            self._record(outcome)

    def _record(self, outcome: Outcome) -> None:
        label, fallen = outcome.target.cpu().numpy(), outcome.fallen.cpu().numpy()
        self._settle(
            outcome.pixels,
            index=outcome.row,
            label=label,
            clean=label,
            worst=np.where(fallen, -1, label)[:, None],
            fallen=fallen,
            broken=outcome.broken,
            attacked=True,
            stage=outcome.stage,
            zero_gradient=outcome.zero_gradient,
        )
