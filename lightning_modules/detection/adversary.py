"""Adversaries of open-world scores: what they raise, and the images that they make."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from configs.schema.attack import Attack as AttackSetting
from configs.schema.open_world import OpenWorldConfig
from configs.schema.scores import CLIPN, MCM, MSP, NegLabel, Score
from configs.schema.single_attack import APGD, PGD
from lightning_modules import attacks
from lightning_modules.attacks import LOSSES, Adversarial, Attack, LossFn
from lightning_modules.attacks.losses import score_loss
from lightning_modules.backbones import Backbone
from lightning_modules.backbones.quick import quick_embedding
from lightning_modules.detection.panel import Panel
from lightning_modules.probes import Terms

ScoreFn = Callable[[Tensor], Tensor]
"""Embeddings (B, D) -> (B,): higher = more in-distribution, each sample by itself, differentiable."""

PROBABILITIES = (MSP, MCM, NegLabel, CLIPN)
_SURE = 1e-15  # float64 still tells 1 - this from 1


@dataclass(frozen=True)
class Aim:
    """An attack of the configuration, by its name, on one score.

    joint  whether an in-distribution image shall be misclassified and accepted; otherwise the score alone decides.
    """

    attack: str
    score: str
    joint: bool = False


class Adversary:
    """Works on the scores of a panel, by all attacks of the configuration, through image tower, adapter and head."""

    def __init__(self, backbone: Backbone, panel: Panel, settings: OpenWorldConfig, terms: Terms) -> None:
        self.panel = panel
        self.aims = aims(settings)
        self._attacks = {name: _built(setting) for name, setting in settings.attacks.items()}
        self._embed = quick_embedding(backbone, terms.fast, terms.compiled)

    def work(self, pixels: Tensor, labels: Tensor, outside: bool, seeds: Tensor) -> Iterator[Adversarial]:
        """What it makes of images (B, 3, H, W), aim by aim in their order; of OOD samples, joint aims are left out."""
        for aim in self.aims:
            if not (outside and aim.joint):
                yield self._attacks[aim.attack](self._embed, pixels, labels, self._loss(aim, outside), seeds)

    def _loss(self, aim: Aim, outside: bool) -> LossFn:
        score, clear = self.panel.scores.one(aim.score), _clear(self.panel.settings[aim.score])
        if not aim.joint:
            return score_loss(lambda embeddings: clear(score(embeddings)), "raise" if outside else "lower")
        spread = clear(self.panel.known[aim.score]).std(correction=0).clamp_min(_SURE)
        threshold = clear(self.panel.thresholds[aim.score])
        return joint_loss(lambda embeddings: clear(score(embeddings)), self.panel.logits(aim.score), threshold, spread)


def aims(settings: OpenWorldConfig) -> list[Aim]:
    """Every attack on every score; then, where they are wanted, jointly on class and score."""
    kinds = (False, True) if settings.joint else (False,)
    return [
        Aim(attack, score, joint)
        for joint in kinds
        for attack in settings.attacks
        for score in settings.attacked_scores
    ]


def log_odds(share: Tensor) -> Tensor:
    """log p / (1 - p) of probabilities p, float64: it orders images alike, and an adversary that works in float32 still
    sees it move where the model is sure and p is all but 1 (the saturation of Carlini & Wagner 2017, sec. 4).

    Beyond float64's reach the value stands still, and p's own gradient, however small, gives the direction.
    """
    share = share.double()
    return torch.logit(share, eps=_SURE) + share - share.detach()


def joint_loss(score: ScoreFn, logits: Callable[[Tensor], Tensor], threshold: Tensor, spread: Tensor) -> LossFn:
    """Has in-distribution images misclassified and accepted all the same: the smaller of the classifier's margin
    (Carlini & Wagner 2017) and of what the score has above its threshold, in units of its spread. Ours.

    Positive exactly where both goals are reached. A sum of cross-entropy and score would trade one for the other: the
    easiest way to a high score is the right class.

    Args:
        logits: embeddings (B, D) -> (B, K).
        threshold: 0-dim, from which on a sample is accepted.
        spread: 0-dim, > 0, of the score over clean in-distribution samples.
    """

    def loss(embeddings: Tensor, labels: Tensor) -> Tensor:
        above = (score(embeddings) - threshold) / spread
        return torch.minimum(LOSSES["margin"](logits(embeddings), labels), above.float())

    return loss


def _clear(setting: Score) -> Callable[[Tensor], Tensor]:
    """How an adversary sees the values of a score."""
    return log_odds if isinstance(setting, PROBABILITIES) else torch.Tensor.double


def _built(setting: AttackSetting) -> Attack:
    assert isinstance(setting, (PGD, APGD)), "the configuration refuses other kinds"
    attack = attacks.build(replace(setting, loss="objective"))
    assert attack is not None
    return attack
