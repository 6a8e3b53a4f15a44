"""What training costs on one device: FLOPs, memory and time, before anything is trained."""

from dataclasses import dataclass

from torch import nn

from configs.schema import ExperimentConfig
from configs.schema.attack import PGD, NoAttack
from configs.schema.module import ContrastivePretraining, RobustFinetuning
from configs.schema.objective import Hierarchical
from experiments.costs.blueprint import Blueprint, Pass, Setting, blueprint, size_of
from experiments.costs.passes import Passes, passes
from lightning_modules.backbones import Backbone
from lightning_modules.backbones.blocks import blocks
from lightning_modules.hierarchy import Forest
from lightning_modules.robust_finetuning import choose_trained

PGD_BATCHES = 1  # of images that an attack keeps beside its pass
ENGINE_BATCHES = 10  # the same, of a scheduled attack; `bench attacks` holds it to that
TEXT_POINTS = 6  # float32 vectors that a prompt's way to its class's point keeps for the backward pass


@dataclass(frozen=True)
class Texts:
    """The texts that images are compared with: prompts, and the classes of all levels that they stand for."""

    prompts: int
    classes: int


@dataclass(frozen=True)
class Memory:
    """Bytes on one device at a time.

    held    what stays: name -> bytes.
    phases  what comes and goes with each part of a step: name -> bytes at its worst moment.
    """

    held: dict[str, int]
    phases: dict[str, int]

    @property
    def peak(self) -> int:
        """The worst moment."""
        return sum(self.held.values()) + max(self.phases.values())

    @property
    def worst(self) -> str:
        """The part of a step that it falls into."""
        return max(self.phases, key=lambda name: self.phases[name])


@dataclass(frozen=True)
class Cost:
    """Of one step of the optimiser, on one device.

    flops   by part of the step.
    memory  see `Memory`.
    """

    flops: dict[str, int]
    memory: Memory

    @property
    def total_flops(self) -> int:
        return sum(self.flops.values())


def training_cost(config: ExperimentConfig, texts: Texts | None = None, forest: Forest | None = None) -> Cost:
    """The cost of a configuration that trains a tower.

    Args:
        texts: where the data says how many there are; without, they count as none.
        forest: where it is known, see `passes`.
    """
    return _Step(config, texts or Texts(0, 0), passes(config, forest)).cost()


def choose(backbone: Backbone, config: ExperimentConfig) -> None:
    """Has those weights require a gradient that the configuration trains."""
    if isinstance(config.module, RobustFinetuning):
        choose_trained(backbone, config.module.objective)
    else:
        backbone.requires_grad_(isinstance(config.module, ContrastivePretraining))


class _Step:
    """A step of the optimiser on one device. B images a batch and rank, A adversaries."""

    def __init__(self, config: ExperimentConfig, texts: Texts, count: Passes) -> None:
        self.config, self.texts, self.count = config, texts, count
        self.plan: Blueprint = blueprint(Setting.of(config.model.name, config.trainer))
        choose(self.plan.backbone, config)
        self.world = config.trainer.devices * config.trainer.nodes
        self.batch = config.data.batch_size // self.world
        self.attacked = self.batch * count.needs.adversaries
        self.sharded = config.trainer.strategy == "fsdp"
        # DDP keeps its buckets, and accumulation what it adds to.
        self.gradients_kept = self.world > 1 or config.trainer.accumulate > 1

    def cost(self) -> Cost:
        return Cost(self._flops(), Memory(self._held(), self._phases()))

    @property
    def _pretrains(self) -> bool:
        return isinstance(self.config.module, ContrastivePretraining)

    @property
    def _hierarchical(self) -> Hierarchical | None:
        objective = getattr(self.config.module, "objective", None)
        return objective if isinstance(objective, Hierarchical) else None

    # Compute

    def _flops(self) -> dict[str, int]:
        """Of all batches of a step; parts that cost nothing are left out."""
        count, needs, training = self.count, self.count.needs, self._training_pass
        attack = Pass() if isinstance(self.config.attack, NoAttack) else self._attack_pass
        forward = training.forward // (needs.adversaries + needs.clean)
        batch = {
            "attack": count.attack[0] * attack.forward + count.attack[1] * attack.backward,
            "training pass": training.flops,
            "clean answers": count.answers * forward,
            "frozen original": count.reference * forward,
            "texts": self._text_flops(),
            "reports": 0 if self._pretrains or needs.clean else forward // self.config.trainer.log_every,
        }
        accumulate = self.config.trainer.accumulate
        return {name: accumulate * flops for name, flops in batch.items() if flops}

    @property
    def _attack_pass(self) -> Pass:
        return self.plan.input_gradient(self.attacked)

    @property
    def _training_pass(self) -> Pass:
        if self._pretrains:
            return self.plan.contrastive(self.batch, self.gradients_kept)
        needs = self.count.needs
        batches = (self.attacked, *((self.batch,) if needs.clean else ()))
        return self.plan.training(batches, needs.tokens, self.gradients_kept)

    def _text_flops(self) -> int:
        """Of a batch: from the features below the projection to the points that images meet, where the projection is
        trained or prompts are perturbed. Otherwise texts are encoded once a run."""
        objective = self._hierarchical
        if objective is None:
            return 0
        projected = 2 * self.texts.prompts * self.plan.text_width * self.plan.width
        weights = int(objective.train_text)
        if objective.text_attack is None:
            return 2 * weights * projected
        # Forwards: as they are, for the attack, perturbed. Backwards: to the attacked features, and to the weights.
        return (4 + weights) * projected + self._text_attack.flops

    @property
    def _text_attack(self) -> Pass:
        objective = self._hierarchical
        if objective is None or objective.text_attack is None:
            return Pass()
        wanted = objective.text_attack.prompts
        perturbed = min(wanted, self.texts.prompts or wanted)
        return self.plan.text_attack(-(-perturbed // self.world))  # the ranks share them out

    # Memory

    def _held(self) -> dict[str, int]:
        backbone = self.plan.backbone
        trained = size_of(self._trained)
        rest = size_of([*backbone.parameters(), *backbone.buffers()]) - trained
        share = self.world if self.sharded else 1
        optim = self.config.optim
        held = {
            "weights": rest + trained // share,
            "gradients": trained // share * self.gradients_kept,
            "optimiser's state": trained // share * {"adamw": 2, "sgd": int(optim.momentum > 0)}[optim.kind],
            "moving average": 4
            * sum(each.numel() for each in self._trained)
            // share
            * (self.config.trainer.ema is not None),
            "frozen original": size_of(backbone.visual.parameters()) * bool(self.count.reference),
            "batch of images": self._images(self.batch),
            "texts": self._text_bytes(),
        }
        return {name: size for name, size in held.items() if size}

    def _phases(self) -> dict[str, int]:
        gathered = self._gathered() if self.sharded else 0
        training = self._training_pass.bytes + self._text_graph()
        phases = {"training pass": training + gathered, "optimiser's step": self._scratch()}
        if not isinstance(self.config.attack, NoAttack):
            kept = PGD_BATCHES if isinstance(self.config.attack, PGD) else ENGINE_BATCHES
            phases["attack"] = self._attack_pass.bytes + kept * self._images(self.attacked) + gathered
        return {name: size for name, size in phases.items() if size}

    def _scratch(self) -> int:
        """What the optimiser makes for its step: AdamW's square roots, SGD's decayed gradients; on a GPU of all weights
        at once. And the gradients, which by then are there."""
        optim, sizes = self.config.optim, [size_of([each]) for each in self._trained]
        share = self.world if self.sharded else 1
        made = 0 if self.gradients_kept else sum(sizes)
        if optim.fused or (optim.kind == "sgd" and not optim.weight_decay):
            return made // share
        return (made + (sum(sizes) if self.config.trainer.accelerator != "cpu" else 2 * max(sizes))) // share

    def _gathered(self) -> int:
        """Whole weights under FSDP: what belongs to no block, and the blocks of now and next."""
        sizes = [size_of(block.parameters()) for block in blocks(self.plan.backbone.visual)]
        return size_of(self._trained) - sum(sizes) + 2 * max(sizes)

    def _text_bytes(self) -> int:
        """Features below the projection and tokens, where texts are trained or perturbed, and otherwise points."""
        if self._hierarchical is None:
            return 4 * self.texts.classes * self.plan.width
        return self.texts.prompts * (4 * self.plan.text_width + 8 * self.plan.context)

    def _text_graph(self) -> int:
        if self._hierarchical is None:
            return 0
        return 4 * TEXT_POINTS * self.texts.prompts * self.plan.width + self._text_attack.bytes

    def _images(self, batch: int) -> int:
        """In float32."""
        return batch * 3 * self.plan.backbone.image_size**2 * 4

    @property
    def _trained(self) -> list[nn.Parameter]:
        return [each for each in self.plan.backbone.parameters() if each.requires_grad]
