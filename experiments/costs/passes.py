"""How often the image tower is passed in training and under attack."""

from dataclasses import dataclass

import torch

from configs.schema import ExperimentConfig
from configs.schema.attack import Attack
from configs.schema.module import NoFinetuning, RobustFinetuning
from lightning_modules import attacks, objectives
from lightning_modules.heads import CosineHead
from lightning_modules.hierarchy import Forest, Tree
from lightning_modules.objectives.objective import Needs

MANY_CLASSES = 10**6  # more than an attack aims at


@dataclass(frozen=True)
class Passes:
    """Of the image tower for a training batch; reports add a clean forward now and then.

    attack   forwards and backwards to the pixels, of each adversary's batch.
    needs    which views the objective looks at.
    trained  whether the tower is.
    """

    attack: tuple[int, int]
    needs: Needs
    trained: bool = True

    @property
    def views(self) -> int:
        """Batches that are alive at once in the training pass."""
        return (self.needs.adversaries + self.needs.clean) * self.trained

    @property
    def answers(self) -> int:
        """Forwards of the trained tower that are not trained on."""
        return int(self.needs.answers)

    @property
    def reference(self) -> int:
        """Forwards of the frozen original."""
        return self.needs.reference + self.needs.reference_adversarial * self.needs.adversaries

    @property
    def forwards(self) -> int:
        """Of all kinds."""
        return self.attack[0] * self.needs.adversaries + self.views + self.answers + self.reference

    @property
    def backwards(self) -> int:
        """Of all kinds."""
        return self.attack[1] * self.needs.adversaries + self.views


SMALL_FOREST = Forest(("a", "b"), (Tree("levels", (("a", "b"), ("c", "d")), ((0, 1),)),))


def passes(config: ExperimentConfig, forest: Forest | None = None) -> Passes:
    """What a configuration asks for.

    Args:
        forest: where it is known; an adversary per level counts its levels, and otherwise two.
    """
    attack = attack_passes(config.attack)
    if not isinstance(config.module, RobustFinetuning):
        return Passes(attack, Needs(), trained=not isinstance(config.module, NoFinetuning))
    objective = config.module.objective
    return Passes(
        attack, objectives.build(objective, CosineHead(1.0), forest or SMALL_FOREST, torch.device("cpu")).needs
    )


def attack_passes(config: Attack) -> tuple[int, int]:
    """Of a sample that no attack fells; those of torchattacks are its own affair, and count as none."""
    attack = attacks.build(config)
    if isinstance(attack, attacks.PGD):
        judged = attack.restarts if attack.restarts > 1 else 0
        return attack.restarts * attack.steps + judged, attack.restarts * attack.steps
    if not isinstance(attack, attacks.AutoAttack):
        return 0, 0
    counts = [(method.trials(MANY_CLASSES) * method.queries, method.needs_gradient) for method in attack.methods]
    forwards = sum(queries for queries, _ in counts)
    return forwards, sum(queries * sum(asked) // len(asked) for queries, asked in counts)
