"""Attacks on every level of a class forest, and what each of them does to all the other levels."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from configs.errors import ConfigError, DataError
from configs.schema.attack import Attack as AttackSetting
from lightning_modules import attacks
from lightning_modules.answers import Answers, Columns, within
from lightning_modules.attacks import LOSSES, Attack, misclassified, noise
from lightning_modules.backbones import Backbone
from lightning_modules.hierarchy import Forest, Level
from lightning_modules.level_classifier import LevelClassifier
from lightning_modules.probes import Row, Terms
from lightning_modules.scorecard import Figure, Scorecard

CLEAN = "superclass"  # attack_name of the clean figures: those of `Evaluation` may be of other samples
Aim = tuple[str, int]
"""An attack's name, and the place of the level that it aims at among the forest's."""
Watcher = Callable[[str, int], None]
"""Is told what was done, as NAME>LEVEL, and to how many samples."""


class SuperclassEvaluation(LightningModule):
    """Fills a matrix of attack level x evaluated level under `Trainer.test`; then `rows` tells what was seen.

    Each attack is aimed at the leaves and at each level of each tree: at that level's own texts, with the label's
    ancestor as the label. What it makes of an image is looked at once, for all levels. A sample is robust at a level if
    the prediction there is right on the clean and on the adversarial image: by prompt, the best of the level's own
    texts; by leaf, the ancestor of the best leaf. `TreeErrors` and `Consistency` look at the adversarial image alone.

    Every sample is attacked, also one that the clean model gets wrong, and from the same random start at every level.
    An attack that judges as it goes (a sequence, or several restarts) leaves a sample once it has fallen at the level
    aimed at, others spend their whole budget: transfer to the other levels is best judged by the latter.

    A measurement that was killed goes on where it stood, with any number of ranks: see `Answers`.
    """

    def __init__(
        self,
        backbone: Backbone,
        forest: Forest,
        *,
        templates: Sequence[str],
        settings: Mapping[str, AttackSetting],
        split: str,
        samples: int,
        terms: Terms,
        folder: Path | None = None,
    ) -> None:
        """
        Args:
            forest: its leaves are the classes that labels count.
            settings: attacks by name.
            samples: how many the split's loader gives, over all ranks.
            terms: `slots` and `pictures` play no part.
            folder: of what is known of samples, named after model, data and templates; None keeps nothing.

        Raises:
            ConfigError: the forest has no tree, or one with nothing to tell apart above the leaves.
        """
        super().__init__()
        _check(forest)
        self.backbone, self.forest = backbone, forest
        self.templates, self.split, self.samples, self.terms = tuple(templates), split, samples, terms
        self.settings, self.folder = dict(settings), folder
        self.attacks = {name: _built(setting) for name, setting in settings.items()}
        self.clean = Scorecard(forest)
        self.aimed = {aim: Scorecard(forest) for aim in self._aims()}
        self._on_device = nn.ModuleList(self.aimed.values())  # so that `.to` finds them
        self.watcher: Watcher | None = None

    def on_test_start(self) -> None:
        """Encodes the classes of all levels, once."""
        self.classifier = LevelClassifier(self.backbone, self.forest, self.templates, self.terms.compiled)
        self.answers = Answers(within(self.folder, "superclass", self._identity()), self.global_rank)

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """The clean images of a batch, and all that the attacks make of them."""
        pixels, labels, index = (batch[name][batch["valid"]] for name in ("image", "label", "index"))
        if not len(labels):
            return
        clean = self.classifier.predict(pixels)
        self.clean.update(clean, clean, labels)
        if not self.aimed:
            return
        recalled = int(self.answers.known(index).sum())
        made = self.answers.of(index, lambda rows: self._made(pixels[rows], labels[rows], index[rows]))
        for (aim, card), answers, hidden in zip(
            self.aimed.items(), made["answers"].unbind(1), made["zero_gradient"].unbind(1), strict=True
        ):
            card.update(clean, answers.T.long(), labels, hidden)
            self._tell(aim, recalled)

    def on_test_end(self) -> None:
        """Closes the file of what is known."""
        self.answers.close()

    def evidence(self) -> dict[str, Any]:
        """What the report draws, by name: how deep the model has the classes of each level, and the trees as JSON."""
        depths = self.classifier.depths()
        found = {
            f"depth/{level.tree or ''}/{level.number}": norms.cpu().numpy()
            for level, norms in zip(self.forest.levels, depths, strict=False)
        }
        return found | {"trees": json.dumps({tree.name: tree.to_dict() for tree in self.forest.trees})}

    def rows(self) -> list[Row]:
        """The figures of the last test, one dict each; the same on every rank.

        Raises:
            DataError: more or fewer samples were seen than there are.
        """
        seen = self.clean.count()
        if seen != self.samples:
            raise DataError(
                f"the superclass matrix over split {self.split!r} saw {seen} samples of {self.samples}; its figures "
                "would not be exact: check the data set with 'pack --verify', and that no rank died"
            )
        clean = self.clean.figures()
        means = _means(self.forest, "mean_level_accuracy", _by_prompt(clean), seen)
        rows = self._rows([*clean, *means], None, CLEAN, {})
        for name in self.settings:
            rows += self._attacked_rows(name)
        return rows

    def _attacked_rows(self, name: str) -> list[Row]:
        setting, rows, diagonal = asdict(self.settings[name]), [], []
        for place, level in enumerate(self.forest.levels):
            figures = self.aimed[name, place].figures()
            diagonal.append(_by_prompt(figures)[place])
            short = attacks.fallbacks(self.settings[name], level.size)
            checks = self.aimed[name, place].checks() | ({"fallbacks": short} if short else {})
            aim = {"tree": level.tree, "level": level.number}
            rows += self._rows(figures, setting | {"aim": aim}, _title(name, level), checks)
        for mean in _means(self.forest, "mean_level_robust_accuracy", diagonal, self.samples):
            aim = {"tree": mean.tree, "level": None}
            rows += self._rows([mean], setting | {"aim": aim}, f"{name}>{mean.tree or 'forest'}", {})
        return rows

    def _rows(
        self, figures: Sequence[Figure], attack: dict[str, Any] | None, name: str, checks: dict[str, Any]
    ) -> list[Row]:
        common = {"split": self.split, "attack": attack, "attack_name": name, "score": None, "checks": checks}
        return [{**figure._asdict(), **common} for figure in figures]

    def _aims(self) -> list[Aim]:
        return [(name, place) for name in self.settings for place in range(len(self.forest.levels))]

    def _made(self, pixels: Tensor, labels: Tensor, index: Tensor) -> Columns:
        """What is to be known of samples: of what each aim made of them, the predictions at all levels, int32
        (B, aims, M), and the share of zero gradients, float32 (B, aims)."""
        seeds, truth = noise.derive(self.terms.seed, 0, index), self.clean.ancestors[:, labels]
        answers, hidden = [], []
        for name, place in self.aimed:
            found = self._attack(name, self.forest.levels[place], pixels, truth[place], seeds)
            answers.append(self.classifier.predict(found.pixels).T.int())
            hidden.append(found.zero_gradient)
            self._tell((name, place), len(labels))
        return {"answers": torch.stack(answers, 1), "zero_gradient": torch.stack(hidden, 1)}

    def _tell(self, aim: Aim, samples: int) -> None:
        if self.watcher is not None:
            self.watcher(_title(aim[0], self.forest.levels[aim[1]]), samples)

    def _identity(self) -> list[Any]:
        """Of all that the answers depend on, beyond what the folder stands for."""
        settings = [(name, asdict(setting)) for name, setting in self.settings.items()]  # aims are in their order
        trees = [(tree.name, tree.to_dict()) for tree in self.forest.trees]
        return [settings, trees, self.split, self.terms.seed, self.terms.fast]

    def _attack(self, name: str, level: Level, pixels: Tensor, labels: Tensor, seeds: Tensor) -> attacks.Adversarial:
        """What the attack makes of the images, at float32's word where it judges by itself who has fallen."""
        attack, loss = self.attacks[name], getattr(self.settings[name], "loss", "objective")
        judges = not isinstance(attack, attacks.PGD) or attack.restarts > 1
        logits = self.classifier.logits_at(level, bfloat16=self.terms.fast and not judges)
        loss_fn = LOSSES["ce" if loss == "objective" else loss]
        return attack(logits, pixels, labels, loss_fn, seeds, misclassified if judges else None)


def _title(name: str, level: Level) -> str:
    return f"{name}>{level.label}"


def _by_prompt(figures: Sequence[Figure]) -> list[float]:
    """In the order of the forest's levels."""
    return [figure.value for figure in figures if figure.metric == "level_accuracy"]


def _means(forest: Forest, metric: str, values: Sequence[float], samples: int) -> list[Figure]:
    """Over the leaves and the levels of each tree, and over all levels of the forest, each once."""
    found = []
    for tree in (*(tree.name for tree in forest.trees), None):
        kept = [
            value
            for level, value in zip(forest.levels, values, strict=True)
            if tree is None or level.tree in (None, tree)
        ]
        found.append(Figure(metric, sum(kept) / len(kept), samples, tree, None))
    return found


def _built(setting: AttackSetting) -> Attack:
    attack = attacks.build(setting)
    assert attack is not None, "the configuration refuses kind none"
    return attack


def _check(forest: Forest) -> None:
    if not forest.trees:
        raise ConfigError(
            "evaluation.superclass needs a class hierarchy, and neither hierarchy.trees nor the data set has one; set "
            "hierarchy.trees.NAME.kind to wordnet, file, folder, unicode or llm"
        )
    for tree in forest.trees:
        if all(level.tree != tree.name for level in forest.levels):
            raise ConfigError(
                f"tree {tree.name!r} has no level of two or more classes above the leaves, so that there is nothing to "
                "attack; cut it lower (hierarchy.trees.NAME.levels), or leave it out of hierarchy.trees"
            )
