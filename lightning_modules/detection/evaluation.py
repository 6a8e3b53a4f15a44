"""Open-world scores of every split, on clean images and on what attacks on the scores make of them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from configs.errors import DataError
from configs.schema.antibodies import BankConfig
from configs.schema.open_world import OpenWorldConfig
from lightning_modules.answers import Answers, Columns, within
from lightning_modules.antibodies import build
from lightning_modules.attacks import noise
from lightning_modules.backbones import Backbone, prompt_embeddings
from lightning_modules.detection.adversary import Adversary, aims
from lightning_modules.detection.attacked_rows import Attacked, AttackedRows
from lightning_modules.detection.audit import OverlapAudit, bank_of
from lightning_modules.detection.clean_look import CleanLook, Part
from lightning_modules.detection.kept import kept
from lightning_modules.detection.rows import clean_rows
from lightning_modules.detection.table import Observed, Table
from lightning_modules.features import Features
from lightning_modules.immune_texts import UNIT, ImmuneTexts, encoded, selected
from lightning_modules.metrics import Count
from lightning_modules.open_world import Reference
from lightning_modules.probes import Row, Terms

Watcher = Callable[[Part, int], None]
"""Is told how many images of a part are done, see `images`."""


@dataclass(frozen=True)
class World:
    """What images are held against, as configuration and data have it.

    banks     sources of antibodies, by name.
    vaccine   the bank that the model was vaccinated with; None: with none.
    concepts  OOD split -> what there is to be seen; None where the data set doesn't tell.
    features  of training images; None where no score needs them.
    """

    class_names: Sequence[str]
    templates: Sequence[str]
    banks: Mapping[str, BankConfig] = field(default_factory=dict)
    vaccine: str | None = None
    concepts: Mapping[str, Sequence[str] | None] = field(default_factory=dict)
    features: Features | None = None


class OpenWorldEvaluation(LightningModule):
    """Tells in-distribution from OOD samples, one dataloader a part, under `Trainer.test`; then `rows` and `evidence`.

    Clean: one pass of the image tower over each split for all scores together. A sample is accepted from the score on
    that 95 % of the in-distribution validation samples reach; by `s_dis`, as its own thresholds have it. Nothing is
    chosen on OOD samples.

    Attacked: an adversary who knows the whole model lowers the score of in-distribution images, so that they are
    rejected, and raises that of OOD images, so that they are accepted. Every sample is attacked with the whole budget.
    What was made against one score is judged by all scores that look at each image by itself, so that the worst of them
    is over everything that was made. These are the worst images that were *found*: no bound on those that there are.

    A measurement that was killed looks at clean images again, and goes on with the attacked ones where it stood, with
    any number of ranks: see `Answers`.
    """

    def __init__(
        self,
        backbone: Backbone,
        parts: Sequence[Part],
        *,
        settings: OpenWorldConfig,
        world: World,
        terms: Terms,
        folder: Path | None = None,
    ) -> None:
        """
        Args:
            parts: in-distribution samples that set thresholds, those that figures are of, OOD splits; then, under
                attack, in-distribution samples and OOD splits.
            terms: `slots` and `pictures` play no part.
            folder: of what is known of attacked samples, named after model, data and templates; None keeps nothing.
        """
        super().__init__()
        self.backbone, self.parts, self.settings = backbone, list(parts), settings
        self.world, self.terms, self.folder = world, terms, folder
        self.clean = [part for part in parts if not part.attacked]
        self.counts = [Count() for _ in parts]
        self.attacked = {number: Table(Observed) for number, part in enumerate(parts) if part.attacked}
        self._on_device = nn.ModuleList([*self.counts, *self.attacked.values()])  # so that `.to` finds them
        self.watcher: Watcher | None = None

    @torch.no_grad()
    def on_test_start(self) -> None:
        """Encodes the classes and the banks, once."""
        reference, texts = self._reference()
        wanted, seed = self.settings.wanted, self.terms.seed
        self.audit = OverlapAudit(wanted, texts, self.world.concepts, self.world.vaccine)
        self.look = CleanLook(wanted, reference, self.clean, seed)
        affected = self.audit.affected
        self.without = CleanLook(affected, self.audit.without(reference), self.clean, seed)
        self.adversary = Adversary(self.backbone, self.look.panel, self.settings, self.terms)
        self.answers = {number: self._answers(self.parts[number], texts) for number in self.attacked}

    def test_step(self, batch: dict[str, Any], batch_idx: int, dataloader_idx: int = 0) -> None:
        """One batch of one part."""
        if batch_idx == 0 and dataloader_idx == 1:  # by all ranks together, whether this one has samples here or not
            self.look.calibrate()
            self.without.calibrate()
        valid = batch["valid"]
        self.counts[dataloader_idx].update(valid)
        seen = int(valid.sum())
        rows = valid.nonzero().squeeze(1) if seen else valid.new_zeros(1, dtype=torch.int64)  # models want one image
        pixels, labels, index = batch["image"][rows], batch["label"][rows], batch["index"].where(valid, -1)[rows]
        part = self.parts[dataloader_idx]
        if part.attacked:
            ask = partial(self._attack, part.group is not None, pixels, labels, index)
            self.attacked[dataloader_idx].update(index, Observed(**self.answers[dataloader_idx].of(index, ask)))
        else:
            embeddings = self._embed(pixels)
            for look in (self.look, self.without):
                look.take(dataloader_idx, index, embeddings, labels)
        if self.watcher is not None:
            self.watcher(part, seen * self.images(part))

    def on_test_end(self) -> None:
        """Closes the files of what is known."""
        for answers in self.answers.values():
            answers.close()

    def images(self, part: Part) -> int:
        """How many images are made of each sample of a part; 1 where none is attacked."""
        aimed = [aim for aim in aims(self.settings) if part.group is None or not aim.joint]
        return len(aimed) if part.attacked else 1

    def rows(self) -> list[Row]:
        """The figures of the last test, one dict each; the same on every rank.

        Raises:
            DataError: a part saw more or fewer samples than there are.
        """
        for part, count in zip(self.parts, self.counts, strict=True):
            _check(part, int(count.compute()))
        without = self.without.contests
        found: list[Row] = []
        for score, contests in self.look.contests.items():
            named = {part.split: self.audit.named(score, part.split) for part in self.clean[2:]}
            found += clean_rows(score, contests, without.get(score, []), named, self.clean[1].split)
        return found + list(self._attacked_rows())

    def evidence(self) -> dict[str, Any]:
        """What reports and notebooks draw, see `kept`."""
        return kept(self.look, {self.parts[number]: table.compute() for number, table in self.attacked.items()})

    def _reference(self) -> tuple[Reference, dict[str, ImmuneTexts]]:
        world, backbone = self.world, self.backbone
        prompts = prompt_embeddings(backbone, world.class_names, world.templates)
        prototypes = UNIT.texts(prompts)
        needed = {bank_of(setting, world.vaccine) for setting in self.settings.wanted.values()}
        texts = {
            name: selected(
                encoded(backbone, source, build(source, world.class_names, name), world.templates, prototypes),
                source,
                prototypes,
            )
            for name, source in world.banks.items()
            if name in needed
        }
        features = labels = None
        if world.features is not None:
            places = torch.arange(len(world.features))
            features = F.normalize(world.features.rows(places), dim=1).to(self.device)
            labels = world.features.labels.to(self.device)
        banks = {name: each.negatives for name, each in texts.items()}
        classes = backbone.head.texts(prompts)
        return Reference(backbone.head, classes, banks, features, labels, backbone.immunity), texts

    def _answers(self, part: Part, texts: Mapping[str, ImmuneTexts]) -> Answers:
        """What is known of a part, in a folder named after all that it depends on beyond what `folder` stands for."""
        world, known = self.world, self.clean[0]  # on which thresholds are set
        banks = [(name, asdict(world.banks[name]), each.bank.digest) for name, each in texts.items()]
        terms = (known.split, known.samples, self.terms.seed, self.terms.fast)
        asked = replace(self.settings, attacked_samples=None)  # a sample's fate does not depend on how many there are
        identity = [asdict(asked), banks, world.vaccine, terms]
        return Answers(within(self.folder, f"open_world-{part.split}", identity), self.global_rank)

    def _attack(self, outside: bool, pixels: Tensor, labels: Tensor, index: Tensor, rows: Tensor) -> Columns:
        """What is to be known of some places of a batch: `Observed` (R, I, S)."""
        pixels, labels, index = pixels[rows], labels[rows], index[rows]
        panel, seeds = self.look.panel, noise.derive(self.terms.seed, 0, index)
        images = [panel.judge(self._embed(pixels), labels)]
        for made in self.adversary.work(pixels, labels, outside, seeds):
            images.append(panel.judge(self._embed(made.pixels), labels, made.zero_gradient))
        return Observed(*(torch.cat(each, 1) for each in zip(*images, strict=True)))._asdict()

    @torch.no_grad()
    def _embed(self, pixels: Tensor) -> Tensor:
        with torch.autocast(pixels.device.type, enabled=False):
            return self.backbone.embed_image(pixels)

    def _attacked_rows(self) -> Iterator[Row]:
        if not self.attacked:
            return
        inside, *outside = (
            Attacked(self.parts[number].split, self.parts[number].group, table.compute())
            for number, table in self.attacked.items()
        )
        yield from AttackedRows(self.look.panel.names, self.settings, inside, outside).all()


def _check(part: Part, seen: int) -> None:
    if seen != part.samples:
        raise DataError(
            f"the open-world scores of split {part.split!r} saw {seen} samples of {part.samples}; their figures would "
            "not be exact: check the data set with 'pack --verify', and that no rank died"
        )
