"""Result rows of open-world detection under attack, from what the scores said to what adversaries made."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

import torch

from configs.schema.open_world import OpenWorldConfig
from configs.schema.single_attack import APGD, PGD
from lightning_modules.detection.adversary import Aim, aims
from lightning_modules.detection.rows import Versus, figure, split_rows
from lightning_modules.detection.table import Observed, worst
from lightning_modules.probes import Row

THREATS = ("id", "ood", "both")
"""Whose images the adversary can change: in-distribution ones, OOD ones, or all of them."""
WORST = "worst"
WANTED = ("auroc", "fpr95_id_pos", "fpr95_ood_pos", "open_set_accuracy")
NOTE = "empirical: the worst image that was found, which bounds nothing"
SURPASSED = 0.05  # of AUROC, by which images that were made against other scores may do better


class Attacked(NamedTuple):
    """A split under attack: I = 1 + number of aims, the first image clean; joint aims come last, and OOD samples have
    no images of them. `group` is None of the in-distribution split."""

    split: str
    group: str | None
    observed: Observed


class AttackedRows:
    """Robust figures of every score. An adversary may leave an image as it is, so that nothing is above the clean
    figure of the same samples, which is in the checks of each row."""

    def __init__(
        self, names: Sequence[str], settings: OpenWorldConfig, inside: Attacked, outside: Sequence[Attacked]
    ) -> None:
        """
        Args:
            names: of the scores, in their order in the tables.
        """
        self.names, self.settings = list(names), settings
        self.inside, self.outside = inside, list(outside)
        self.aims = aims(settings)
        self.attacks = {name: each for name, each in settings.attacks.items() if isinstance(each, (PGD, APGD))}

    def all(self) -> Iterator[Row]:
        """By each attack on the score itself, then the worst of everything within a budget; jointly on class and score
        after that."""
        for aim in self.aims:
            if not aim.joint:
                yield from self._aimed(aim)
        for norm, eps_255 in dict.fromkeys((attack.norm, attack.eps_255) for attack in self.attacks.values()):
            for score in self.names:
                yield from self._worst(score, norm, eps_255)
        for aim in self.aims:
            if aim.joint:
                yield self._joint(aim)

    def _aimed(self, aim: Aim) -> Iterator[Row]:
        """One attack on the score that is judged."""
        setting = asdict(self.attacks[aim.attack]) | {"loss": "score"}
        place = 1 + self.aims.index(aim)
        everything = self._places(lambda each: each.attack == aim.attack and not each.joint)
        for threat in THREATS:
            own, any_score = (self._contests(aim.score, images, threat) for images in ([0, place], everything))
            checks = self._checks(place, threat) | {"note": NOTE}
            gap = max(_auroc(one) - _auroc(other) for one, other in zip(own, any_score, strict=True))
            checks["surpassed"] = round(gap, 6)
            if gap > SURPASSED:
                checks["suspect"] = [*checks["suspect"], "images made against other scores do better"]
            yield from self._told(aim.score, own, setting, f"{aim.attack}@{threat}", threat, checks)

    def _worst(self, score: str, norm: str, eps_255: float) -> Iterator[Row]:
        """All images within a budget, whichever score they were made against."""
        within = [name for name, each in self.attacks.items() if each.norm == norm and each.eps_255 <= eps_255]
        setting = {"kind": WORST, "norm": norm, "eps_255": eps_255, "attacks": within}
        images = self._places(lambda aim: aim.attack in within)
        checks: dict[str, Any] = {"note": NOTE, "images": len(images) - 1}
        if score not in self.settings.attacked_scores:
            checks["suspect"] = ["no attack was aimed at this score"]
        for threat in THREATS:
            contests = self._contests(score, images, threat)
            yield from self._told(score, contests, setting, f"{WORST}@{threat}", threat, checks)

    def _joint(self, aim: Aim) -> Row:
        """Share of in-distribution samples that are taken for another class, on the clean image or the attacked one."""
        place, score = 1 + self.aims.index(aim), self.names.index(aim.score)
        observed = self.inside.observed
        silent = ~observed.right[:, :, score] & observed.accepted[:, :, score]
        return figure(
            "silent_error",
            float(silent[:, [0, place]].any(1).double().mean()),
            n=len(silent),
            split=self.inside.split,
            score=aim.score,
            attack=asdict(self.attacks[aim.attack]) | {"loss": "joint", "threat": "id"},
            attack_name=f"{aim.attack}@joint",
            checks=self._checks(place, "id") | {"note": NOTE, "clean": float(silent[:, 0].double().mean())},
        )

    def _told(
        self,
        score: str,
        contests: Sequence[Versus],
        setting: Mapping[str, Any],
        name: str,
        threat: str,
        checks: Mapping[str, Any],
    ) -> Iterator[Row]:
        clean = split_rows(self._contests(score, [0], threat))
        attack = {**setting, "threat": threat}
        for row, before in zip(split_rows(contests, score=score, attack=attack, attack_name=name), clean, strict=True):
            if row["metric"] in WANTED:
                yield {**row, "checks": {**checks, "clean": before["value"]}}

    def _contests(self, score: str, images: Sequence[int], threat: str) -> list[Versus]:
        place = self.names.index(score)
        known = worst(self.inside.observed, place, [0] if threat == "ood" else images, outside=False)
        held = self._places(lambda aim: not aim.joint)  # what OOD samples have
        shown = [0] if threat == "id" else [image for image in images if image in held]
        return [
            Versus(each.split, str(each.group), known, worst(each.observed, place, shown, outside=True))
            for each in self.outside
        ]

    def _places(self, chosen: Callable[[Aim], bool]) -> list[int]:
        """Of the clean image, and of those made by some aims."""
        return [0, *(place for place, aim in enumerate(self.aims, 1) if chosen(aim))]

    def _checks(self, place: int, threat: str) -> dict[str, Any]:
        """What speaks for and against a figure of one attack.

        attacked       samples that the attack worked on.
        zero_gradient  mean share of coordinates without gradient.
        """
        splits = [self.inside] if threat == "id" else self.outside if threat == "ood" else [self.inside, *self.outside]
        shares = torch.cat([each.observed.zero_gradient[:, place] for each in splits]).double()
        hidden = round(float(shares.mean()), 6)
        suspect = ["gradients are zero"] if hidden > 0.5 else []
        return {"attacked": len(shares), "zero_gradient": hidden, "suspect": suspect}


def _auroc(contest: Versus) -> float:
    (found,) = (row["value"] for row in split_rows([contest]) if row["metric"] == "auroc")
    return float(found)
