"""Measures a model: clean and attacked accuracy per level of the class trees."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import nn

from configs.schema.attack import NoAttack, labelless
from lightning_modules.attacks import fallbacks, noise
from lightning_modules.attacks.beliefs import examine
from lightning_modules.backbones import Backbone
from lightning_modules.campaign import Campaign, FullBudget, Labelless, Scheduled
from lightning_modules.hierarchy import Tree
from lightning_modules.ledger import Array, Ledger, Precision
from lightning_modules.probes import Pictures, Probe, Row, Tally, Terms
from lightning_modules.zero_shot import CleanSimilarities, ZeroShot, best

Batch = dict[str, Any]
Watcher = Callable[[Tally, int, bool], None]
"""Is told of an attacked probe that this many samples more are settled, and whether by this attempt."""


@dataclass(frozen=True)
class Examination:
    """What the model is examined on for signs that attacks on it fail for other reasons than robustness.

    batch       `image` float (N, 3, H, W) in [0, 1], `label` and `index` int64 (N,); the same on every rank.
    undefended  the model before it was made robust, with the same classes; None where that is the one that is measured.
    """

    batch: Batch
    undefended: Backbone | None = None


@dataclass(frozen=True)
class Keeping:
    """What is kept of the attacks, and where.

    folder  of the ledgers; None keeps nothing beyond the process.
    save    how adversarial images are kept; None: not at all.
    reuse   whether a sample that fell at a smaller radius is attacked again at a larger one.
    """

    folder: Path | None = None
    save: Precision | None = None
    reuse: bool = True


class Evaluation(LightningModule):
    """Runs probes, one dataloader each, under `Trainer.test`; then `rows` and `evidence` tell what was seen.

    Shapes: B images, K classes. A sample is robust at a level of a tree if the ancestor of the predicted leaf is the
    label's on the clean image and on every image that the attack made of it; the leaves are level 0, counted as
    AutoAttack counts. The adversary aims at the leaf. `Scheduled` attacks give figures for the leaves alone.

    An attacked probe that was killed goes on where it stood, with any number of ranks: see `Ledger`.
    """

    def __init__(
        self,
        backbone: Backbone,
        probes: Sequence[Probe],
        *,
        class_names: Sequence[str],
        templates: Sequence[str],
        trees: Sequence[Tree],
        terms: Terms,
        keeping: Keeping | None = None,
        examination: Examination | None = None,
    ) -> None:
        """
        Args:
            trees: hierarchies whose leaves are `class_names`.
            terms: of all attacks; `terms.pictures` are kept of the first attacked probe.
            keeping: default: nothing is kept.
            examination: None leaves it out.
        """
        super().__init__()
        self.backbone = backbone
        self.class_names, self.templates = tuple(class_names), tuple(templates)
        self.terms, self.keeping, self.examination = terms, keeping or Keeping(), examination
        self.tallies = [Tally(probe, trees) for probe in probes]
        self._on_device = nn.ModuleList(self.tallies)  # so that `.to` finds them
        self.ledgers: dict[int, Ledger] = {}  # by the number of the attacked probe, once it has begun
        self.beliefs: dict[str, Any] = {}
        self.watcher: Watcher | None = None
        self._campaign: Campaign | None = None

    def on_test_start(self) -> None:
        """Encodes the classes, once, and examines the model."""
        self.classifier = ZeroShot(self.backbone, self.class_names, self.templates)
        self.clean = CleanSimilarities(self.classifier)
        if self.examination is not None:
            self.beliefs = self._examine(self.examination)

    def test_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """One batch of one probe."""
        tally = self.tallies[dataloader_idx]
        if tally.probe.attack is None:
            self._look(tally, batch)
            return
        if batch_idx == 0:
            self._campaign = self._begin(dataloader_idx)
        assert self._campaign is not None
        self._campaign.take(batch)
        if batch_idx + 1 == self.trainer.num_test_batches[dataloader_idx]:
            self._campaign.finish()
            self._campaign = None

    def rows(self) -> list[Row]:
        """The figures of the last test, one dict each; the same on every rank.

        Raises:
            DataError: a probe saw more or fewer samples than there are.
        """
        for tally in self.tallies:
            tally.check()
        return [row for tally in self.tallies for row in tally.rows(self.beliefs | self._fallbacks(tally))]

    def evidence(self) -> dict[str, Any]:
        """What the report draws, arrays by name: pictures."""
        pictures = Pictures(row for ledger in self.ledgers.values() for row in ledger.pictures.values())
        found: dict[str, Any] = {f"pictures/{name}": array for name, array in pictures.arrays().items()}
        return found | {"class_names": list(self.class_names)}

    def attacks(self) -> list[tuple[Probe, Ledger]]:
        """The attacked probes of the last test, with all that is known of their samples."""
        return [(self.tallies[number].probe, ledger) for number, ledger in self.ledgers.items()]

    @torch.no_grad()
    def _look(self, tally: Tally, batch: Batch) -> None:
        """Predictions on clean images."""
        tally.count.update(batch["valid"])
        predictions = best(self.clean(tally.probe.split, batch["index"], batch["image"]))
        for accuracy in tally.accuracies:
            accuracy.update(predictions, batch["label"], batch["valid"])

    def _begin(self, number: int) -> Campaign:
        """The campaign of an attacked probe, with what earlier attempts know."""
        tally, terms = self.tallies[number], self.terms
        probe = tally.probe
        assert probe.attack is not None
        first = not self.ledgers
        ledger = Ledger(self._folder(probe), self.global_rank, self._saves(probe), first and terms.pictures > 0)
        smaller = [other for place, other in self.ledgers.items() if probe.covers(self.tallies[place].probe)]
        self.ledgers[number] = ledger
        terms = terms if first else replace(terms, pictures=0)
        kind = Scheduled if probe.scheduled else Labelless if labelless(probe.attack) else FullBudget
        settled = partial(self._settled, tally)
        return kind(
            probe.attack, probe.split, self.clean, ledger, settled, terms, smaller if self.keeping.reuse else ()
        )

    def _settled(self, tally: Tally, records: Array, news: bool) -> None:
        tally.settle(records)
        if self.watcher is not None:
            self.watcher(tally, len(records), news)

    def _saves(self, probe: Probe) -> Precision | None:
        return None if probe.name == "sweep" else self.keeping.save

    def _folder(self, probe: Probe) -> Path | None:
        """Named after all that a sample's fate depends on, beyond what `Keeping.folder` stands for."""
        if self.keeping.folder is None:
            return None
        assert probe.attack is not None
        settings = [
            asdict(probe.attack),
            probe.split,
            probe.scheduled,
            self.terms.fast,
            self.terms.seed,
            self.keeping.reuse,
        ]
        digest = hashlib.sha256(json.dumps([*settings, self._saves(probe)], sort_keys=True).encode()).hexdigest()
        return self.keeping.folder / f"{probe.name}-{digest[:8]}"

    def _examine(self, examination: Examination) -> dict[str, Any]:
        """The model under the first attack's radius; the same on every rank."""
        attacked = next((tally.probe.attack for tally in self.tallies if tally.probe.attack is not None), None)
        if attacked is None or isinstance(attacked, NoAttack):
            return {}
        batch = {name: examination.batch[name].to(self.device) for name in ("image", "label", "index")}
        undefended = None
        if examination.undefended is not None:
            before = examination.undefended.to(self.device)
            undefended = ZeroShot(before, self.class_names, self.templates).logits
        beliefs = examine(
            self.classifier.logits,
            batch["image"],
            batch["label"],
            noise.derive(self.terms.seed, 1, batch["index"]),
            attacked.eps_255 / 255,
            attacked.norm,
            logit_scale=float(self.classifier.scale),
            undefended_fn=undefended,
            samples=len(batch["label"]),
            slots=self.terms.slots,
        )
        self.examination = None
        return beliefs.fields()

    def _fallbacks(self, tally: Tally) -> dict[str, Any]:
        found = fallbacks(tally.probe.attack, len(self.class_names)) if tally.probe.attack else []
        return {"fallbacks": found} if found else {}
