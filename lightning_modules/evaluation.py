"""Measures a model: clean and attacked accuracy per level of the class trees, and how well it rejects the unknown."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from configs.schema.attack import PGD, Attack
from lightning_modules import attacks
from lightning_modules.attacks import LOSSES, misclassified, noise
from lightning_modules.backbones import Backbone, class_features
from lightning_modules.hierarchy import Tree
from lightning_modules.metrics import OODDetection
from lightning_modules.open_world import SCORES
from lightning_modules.probes import Pictures, Probe, Row, Tally

Batch = dict[str, Any]


class Evaluation(LightningModule):
    """Runs probes, one dataloader each, under `Trainer.test`; then `rows` and `evidence` tell what was seen.

    Shapes: B images, K classes, A predictions of one image. A sample is robust at a level of a tree if the ancestor of
    the predicted leaf is the label's on the clean image and on every image that the attack made of it; the leaves are
    level 0, counted as AutoAttack counts. The adversary aims at the leaf. It spends its whole budget on each image
    first, also where the clean leaf is wrong already, since a wrong leaf may have the right ancestor; then an attack of
    several stages or restarts goes on with the images whose leaf stands.
    """

    def __init__(
        self,
        backbone: Backbone,
        probes: Sequence[Probe],
        *,
        class_names: Sequence[str],
        templates: Sequence[str],
        trees: Sequence[Tree],
        scores: Mapping[str, float],
        seed: int,
        pictures: int = 0,
    ) -> None:
        """
        Args:
            trees: hierarchies whose leaves are `class_names`.
            scores: temperature of each open-world score, by the score's name.
            seed: of the attacks' random starts, with the index of each sample.
            pictures: how many images to keep from the first attacked probe.
        """
        super().__init__()
        self.backbone = backbone
        self.class_names, self.templates = tuple(class_names), tuple(templates)
        self.temperatures = dict(scores)
        self.seed = seed
        self.tallies = [Tally(probe, trees, scores) for probe in probes]
        self._on_device = nn.ModuleList(self.tallies)  # so that `.to` finds them
        self.pictures = Pictures(pictures)
        self.pictured = next((tally for tally in self.tallies if tally.probe.attack is not None), None)

    def on_test_start(self) -> None:
        """Encodes the classes, once."""
        self.text_features = class_features(self.backbone, self.class_names, self.templates).float()

    def test_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """One batch of one probe."""
        tally = self.tallies[dataloader_idx]
        probe, valid = tally.probe, batch["valid"]
        tally.count.update(valid)
        with torch.no_grad():
            cosines = self._cosines(batch["image"])
        if probe.scored:
            for score, values in tally.scores.items():
                values.update(SCORES[score](cosines, self.temperatures[score])[valid])
        if probe.group is None:
            predictions = cosines.argmax(dim=1)[None]
            if probe.attack is not None:
                predictions = torch.cat([predictions, self._attacked(probe.attack, tally, batch, predictions[0])])
            for accuracy in tally.accuracies:
                accuracy.update(predictions, batch["label"], valid)

    def rows(self) -> list[Row]:
        """The figures of the last test, one dict each; the same on every rank.

        Raises:
            DataError: a probe saw more or fewer samples than there are.
        """
        for tally in self.tallies:
            tally.check()
        return [row for tally in self.tallies for row in tally.rows()] + self._open_world_rows()

    def evidence(self) -> dict[str, Any]:
        """What the report draws, arrays by name: scores per split, and pictures."""
        scored = [tally for tally in self.tallies if tally.probe.scored]
        found: dict[str, Any] = {
            f"scores/{score}/{tally.probe.split}": tally.values(score).cpu().numpy()
            for tally in scored
            for score in tally.scores
        }
        found |= {f"pictures/{name}": array for name, array in self.pictures.arrays().items()}
        return found | {"class_names": list(self.class_names)}

    def _cosines(self, pixels: Tensor) -> Tensor:
        """Cosines (B, K) of images and class texts, fp32."""
        embeddings = self.backbone.embed_image(pixels)
        with torch.autocast(embeddings.device.type, enabled=False):
            return F.normalize(embeddings.float(), dim=-1) @ self.text_features.T

    def _logits(self, pixels: Tensor) -> Tensor:
        return self.backbone.logit_scale.detach().float() * self._cosines(pixels)

    @torch.no_grad()
    def _predict(self, pixels: Tensor) -> Tensor:
        return self._cosines(pixels).argmax(dim=1)

    def _attacked(self, setting: Attack, tally: Tally, batch: Batch, clean: Tensor) -> Tensor:
        """Predictions (A, B) on what the attack made of a batch whose `clean` predictions (B,) are given."""
        pixels, labels, valid = batch["image"], batch["label"], batch["valid"]
        attack = attacks.build(setting)
        assert attack is not None, "a probe without an attack has attack None"
        loss = LOSSES[setting.loss if isinstance(setting, PGD) and setting.loss != "objective" else "ce"]
        seeds = noise.derive(self.seed, 0, batch["index"])
        found = attack(self._logits, pixels, labels, loss, seeds)
        worst, first = found.pixels, self._predict(found.pixels)
        predictions = [first]
        standing = ((clean == labels) & (first == labels) & valid).nonzero().squeeze(1)
        if len(standing) and not (isinstance(setting, PGD) and setting.restarts == 1):
            again = attack(self._logits, pixels[standing], labels[standing], loss, seeds[standing], misclassified)
            worst = worst.index_copy(0, standing, again.pixels)
            predictions.append(first.index_copy(0, standing, self._predict(again.pixels)))
        tally.zero_gradient.update(found.zero_gradient[valid])
        if tally is self.pictured and self.pictures.missing > 0:
            self._keep_pictures(batch, worst, clean)
        return torch.stack(predictions)

    def _keep_pictures(self, batch: Batch, adversarial: Tensor, predictions: Tensor) -> None:
        kept = batch["valid"].nonzero().squeeze(1)[: self.pictures.missing]
        self.pictures.clean += list(batch["image"][kept].float().cpu())
        self.pictures.adversarial += list(adversarial[kept].cpu())
        self.pictures.label += batch["label"][kept].tolist()
        self.pictures.clean_prediction += predictions[kept].tolist()
        self.pictures.adversarial_prediction += self._predict(adversarial[kept]).tolist()

    def _open_world_rows(self) -> list[Row]:
        """Every score on every OOD split, and the mean over the splits of each group."""
        inside = next((tally for tally in self.tallies if tally.probe.scored and tally.probe.group is None), None)
        outside = [tally for tally in self.tallies if tally.probe.group is not None]
        if inside is None or not outside:
            return []
        rows: list[Row] = []
        for score in self.temperatures:
            found = [(tally.probe, self._detection(inside.values(score), tally.values(score))) for tally in outside]
            rows += [row for probe, metrics in found for row in _rows(score, probe.split, probe.samples, metrics)]
            for group in dict.fromkeys(probe.group for probe, _ in found):
                members = [(probe.samples, metrics) for probe, metrics in found if probe.group == group]
                if len(members) > 1:
                    means = {name: sum(each[name] for _, each in members) / len(members) for name in members[0][1]}
                    rows += _rows(score, str(group), sum(samples for samples, _ in members), means)
        return rows

    def _detection(self, inside: Tensor, outside: Tensor) -> dict[str, float]:
        metric = OODDetection(sync_on_compute=False).to(self.device)  # the scores are gathered already
        for values, is_ood in ((inside, False), (outside, True)):
            kind = torch.full_like(values, is_ood, dtype=torch.bool)
            metric.update(values, kind, torch.ones_like(kind))
        return {name: float(value) for name, value in metric.compute().items()}


def _rows(score: str, split: str, samples: int, metrics: Mapping[str, float]) -> list[Row]:
    common = {"n": samples, "split": split, "tree": None, "level": None, "attack": None, "attack_name": None}
    return [{"metric": name, "value": value, **common, "score": score, "checks": {}} for name, value in metrics.items()]
