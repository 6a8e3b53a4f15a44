"""Measures a model: clean and attacked accuracy per level of the class trees, and how well it rejects what it does not know."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule
from torch import Tensor
from torchmetrics import CatMetric, MeanMetric

from configs.errors import DataError
from configs.schema.attack import PGD, Attack
from lightning_modules import attacks
from lightning_modules.attacks import LOSSES, misclassified, noise
from lightning_modules.backbones import Backbone, class_features
from lightning_modules.hierarchy import Tree
from lightning_modules.metrics import Accuracy, Count, OODDetection
from lightning_modules.open_world import SCORES

Batch = dict[str, Any]
Row = dict[str, Any]


@dataclass(frozen=True)
class Probe:
    """One pass over one split: what is done to its images and how many there are.

    name    of the attack, or `clean`, or `sweep` for a point of the accuracy-by-eps curve.
    attack  None leaves the pixels alone.
    group   of an OOD split: `near` or `far`; None for in-distribution images.
    """

    name: str
    split: str
    samples: int
    attack: Attack | None = None
    group: str | None = None

    @property
    def scored(self) -> bool:
        """Whether open-world scores are taken: on the whole of a split, once, unattacked."""
        return self.name == "clean"


@dataclass
class Pictures:
    """Some clean images, what the first attack made of them, and what the model said to both. Host memory."""

    clean: list[Tensor] = field(default_factory=list)  # float (3, H, W)
    adversarial: list[Tensor] = field(default_factory=list)
    label: list[int] = field(default_factory=list)
    clean_prediction: list[int] = field(default_factory=list)
    adversarial_prediction: list[int] = field(default_factory=list)


class Evaluation(LightningModule):
    """Runs probes, one dataloader each, under `Trainer.test`; then `rows` and `evidence` tell what was seen.

    Shapes: B images, K classes, A predictions of one image. A sample is robust at a level of a tree if the ancestor of the
    predicted leaf is the label's on the clean image and on every image that the attack made of it; the leaves are level 0,
    counted as AutoAttack counts. The adversary aims at the leaf. It spends its whole budget on each image first, also
    where the clean leaf is wrong already, since a wrong leaf may have the right ancestor; then an attack of several stages
    or restarts goes on with the images whose leaf stands. Metrics are sums or concatenations over valid samples and all
    ranks; a probe that did not see each of its samples once raises DataError.
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
            pictures: how many images to keep from the first attacked probe.
        """
        super().__init__()
        self.backbone = backbone
        self.probes = tuple(probes)
        self.class_names, self.templates = tuple(class_names), tuple(templates)
        self.levels = [(None, 0), *((tree.name, level) for tree in trees for level in range(1, tree.depth + 1))]
        ancestors = [None, *(tree.ancestors(level) for tree in trees for level in range(1, tree.depth + 1))]
        self.temperatures = dict(scores)
        self.seed = seed
        self.wanted_pictures = pictures
        self.pictures = Pictures()
        self.counts = torch.nn.ModuleList(Count() for _ in probes)
        self.accuracies = torch.nn.ModuleList(
            torch.nn.ModuleList(Accuracy(leaf_to_class) for leaf_to_class in ancestors) for _ in probes
        )
        self.zero_gradients = torch.nn.ModuleList(MeanMetric() for _ in probes)
        self.score_values = torch.nn.ModuleList(
            torch.nn.ModuleDict({score: CatMetric().set_dtype(torch.float64) for score in scores}) for _ in probes
        )

    def on_test_start(self) -> None:
        """Encodes the classes, once."""
        self.text_features = class_features(self.backbone, self.class_names, self.templates).float()

    def test_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """One batch of one probe."""
        probe = self.probes[dataloader_idx]
        labels, valid = batch["label"], batch["valid"]
        self.counts[dataloader_idx].update(valid)
        cosines = self._cosines(batch["image"])
        if probe.scored:
            for score, values in self.score_values[dataloader_idx].items():
                values.update(SCORES[score](cosines, self.temperatures[score])[valid])
        if probe.group is None:
            predictions = cosines.argmax(dim=1)[None]
            if probe.attack is not None:
                predictions = torch.cat(
                    [predictions, self._attacked(probe.attack, dataloader_idx, batch, predictions[0])]
                )
            for accuracy in self.accuracies[dataloader_idx]:
                accuracy.update(predictions, labels, valid)

    def rows(self) -> list[Row]:
        """The figures of the last test, one dict each; the same on every rank.

        Raises:
            DataError: a probe saw more or fewer samples than there are.
        """
        for probe, count in zip(self.probes, self.counts, strict=True):
            if int(count.compute()) != probe.samples:
                raise DataError(
                    f"{probe.name} over split {probe.split!r} saw {int(count.compute())} samples of {probe.samples}; "
                    "the figures are not exact and are not reported"
                )
        return [row for i in range(len(self.probes)) for row in self._accuracy_rows(i)] + self._open_world_rows()

    def evidence(self) -> dict[str, Any]:
        """What the report draws: scores per split, and pictures; arrays by name."""
        found = {
            f"scores/{score}/{probe.split}": values.compute().float().cpu().numpy()
            for probe, by_score in zip(self.probes, self.score_values, strict=True)
            for score, values in by_score.items()
            if probe.scored
        }
        if self.pictures.label:
            images = {name: torch.stack(getattr(self.pictures, name)) for name in ("clean", "adversarial")}
            found |= {f"pictures/{name}": (image * 255).round().byte().numpy() for name, image in images.items()}
            for name in ("label", "clean_prediction", "adversarial_prediction"):
                found[f"pictures/{name}"] = torch.tensor(getattr(self.pictures, name)).numpy()
        return found | {"class_names": list(self.class_names)}

    def _cosines(self, pixels: Tensor) -> Tensor:
        """Cosines (B, K) of images and class texts, fp32."""
        embeddings = self.backbone.embed_image(pixels)
        with torch.autocast(embeddings.device.type, enabled=False):
            return F.normalize(embeddings.float(), dim=-1) @ self.text_features.T

    def _logits(self, pixels: Tensor) -> Tensor:
        return self.backbone.logit_scale.detach().float() * self._cosines(pixels)

    def _attacked(self, setting: Attack, number: int, batch: Batch, clean: Tensor) -> Tensor:
        """Predictions (A, B) on what the attack made of a batch whose `clean` predictions (B,) are given."""
        pixels, labels, valid = batch["image"], batch["label"], batch["valid"]
        attack = attacks.build(setting)
        assert attack is not None, "probes of clean pixels have no attack"
        loss = LOSSES[setting.loss if isinstance(setting, PGD) and setting.loss != "objective" else "ce"]
        seeds = noise.derive(self.seed, 0, batch["index"])
        found = attack(self._logits, pixels, labels, loss, seeds)
        worst, first = found.pixels, self._predict(found.pixels)
        predictions = [first]
        standing = ((clean == labels) & (first == labels) & valid).nonzero().squeeze(1)
        if len(standing) and not (isinstance(setting, PGD) and setting.restarts == 1):
            again = attack(self._logits, pixels[standing], labels[standing], loss, seeds[standing], misclassified)
            worst, second = worst.index_copy(0, standing, again.pixels), self._predict(again.pixels)
            predictions.append(first.index_copy(0, standing, second))
        self.zero_gradients[number].update(found.zero_gradient[valid])
        self._keep_pictures(number, batch, worst, clean)
        return torch.stack(predictions)

    @torch.no_grad()
    def _predict(self, pixels: Tensor) -> Tensor:
        return self._cosines(pixels).argmax(dim=1)

    def _keep_pictures(self, number: int, batch: Batch, adversarial: Tensor, predictions: Tensor) -> None:
        first = next(i for i, probe in enumerate(self.probes) if probe.attack is not None)
        wanted = self.wanted_pictures - len(self.pictures.label)
        if number != first or wanted <= 0:
            return
        self.pictures.clean += list(batch["image"][:wanted].float().cpu())
        self.pictures.adversarial += list(adversarial[:wanted].cpu())
        self.pictures.label += batch["label"][:wanted].tolist()
        self.pictures.clean_prediction += predictions[:wanted].tolist()
        self.pictures.adversarial_prediction += self._predict(adversarial[:wanted]).tolist()

    def _accuracy_rows(self, number: int) -> list[Row]:
        probe = self.probes[number]
        if probe.group is not None:
            return []
        setting = {**asdict(probe.attack)} if probe.attack is not None else None
        checks: dict[str, Any] = {}
        if probe.attack is not None:
            hidden = float(self.zero_gradients[number].compute())
            checks = {"zero_gradient": hidden, "suspect": ["gradients are zero"] if hidden > 0.5 else []}
        return [
            {
                "metric": "accuracy",
                "value": float(accuracy.compute()),
                "n": probe.samples,
                "split": probe.split,
                "tree": tree,
                "level": level,
                "attack": setting,
                "attack_name": None if probe.name == "clean" else probe.name,
                "score": None,
                "checks": checks,
            }
            for (tree, level), accuracy in zip(self.levels, self.accuracies[number], strict=True)
        ]

    def _open_world_rows(self) -> list[Row]:
        """Every score on every OOD split, and the mean over the splits of each group."""
        inside = next((i for i, probe in enumerate(self.probes) if probe.scored and probe.group is None), None)
        outside = [i for i, probe in enumerate(self.probes) if probe.group is not None]
        if inside is None or not outside:
            return []
        rows: list[Row] = []
        for score in self.temperatures:
            found = {i: self._detection(score, inside, i) for i in outside}
            for i, metrics in found.items():
                rows += self._detection_rows(score, self.probes[i].split, self.probes[i].samples, metrics)
            for group in dict.fromkeys(self.probes[i].group for i in outside):
                members = [i for i in outside if self.probes[i].group == group]
                if len(members) > 1:
                    means = {name: sum(found[i][name] for i in members) / len(members) for name in found[members[0]]}
                    count = sum(self.probes[i].samples for i in members)
                    rows += self._detection_rows(score, str(group), count, means)
        return rows

    def _detection(self, score: str, inside: int, outside: int) -> dict[str, float]:
        metric = OODDetection(sync_on_compute=False).to(self.device)  # the scores are gathered already
        for number, is_ood in ((inside, False), (outside, True)):
            values = self.score_values[number][score].compute()
            kind = torch.full_like(values, is_ood, dtype=torch.bool)
            metric.update(values, kind, torch.ones_like(kind))
        return {name: float(value) for name, value in metric.compute().items()}

    def _detection_rows(self, score: str, split: str, samples: int, metrics: Mapping[str, float]) -> list[Row]:
        common = {"n": samples, "split": split, "tree": None, "level": None, "attack": None, "attack_name": None}
        return [
            {"metric": name, "value": value, **common, "score": score, "checks": {}} for name, value in metrics.items()
        ]
