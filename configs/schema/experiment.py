"""One experiment: everything that a run is made of."""

import re
from dataclasses import dataclass, field

from configs.errors import ConfigError, FieldError, did_you_mean
from configs.schema.antibodies import BankConfig
from configs.schema.attack import APGD, PGD, Attack, NoAttack, labelless
from configs.schema.checks import at_least
from configs.schema.data import ClassificationData, Data, ImageTextData
from configs.schema.evaluation import EvaluationConfig
from configs.schema.hierarchy import HierarchyConfig
from configs.schema.logging import LoggingConfig
from configs.schema.model import ModelConfig
from configs.schema.module import ContrastivePretraining, Module, NoFinetuning, OptimConfig, RobustFinetuning
from configs.schema.objective import SAFT, TGAZSR, Hierarchical
from configs.schema.trainer import TrainerConfig
from configs.schema.vaccination import VaccinationConfig


@dataclass(frozen=True)
class ExperimentConfig:
    """A complete run. `name` is the experiment file's, unless it says another."""

    name: str
    seed: int = 0
    output: str = "outputs"
    model: ModelConfig = field(default_factory=ModelConfig)
    data: Data = field(default_factory=ClassificationData)
    hierarchy: HierarchyConfig = field(default_factory=HierarchyConfig)
    antibodies: dict[str, BankConfig] = field(default_factory=dict)
    module: Module = field(default_factory=RobustFinetuning)
    attack: Attack = field(default_factory=NoAttack)
    optim: OptimConfig = field(default_factory=OptimConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    vaccination: VaccinationConfig | None = None
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    logging: LoggingConfig = field(default_factory=LoggingConfig)

    def __post_init__(self) -> None:
        at_least(0, seed=self.seed)
        if not re.fullmatch(r"\w[\w.-]*", self.name):
            raise FieldError("name", f"becomes a folder: letters, digits and _ . - only, got '{self.name}'")
        self._check_optimiser()
        self._check_patience()
        self._check_shares()
        self._check_data()
        self._check_attacks()
        self._check_vaccination()
        self._check_banks()

    def _check_optimiser(self) -> None:
        if self.optim.fused and self.trainer.clip_norm is not None and self.trainer.precision == "bf16-mixed":
            raise ConfigError(
                "optim.fused=true with trainer.clip_norm and trainer.precision=bf16-mixed raises in Lightning 2.6; "
                "set optim.fused=false"
            )
        if self.optim.fused and self.optim.kind != "adamw":
            raise ConfigError(f"optim.fused=true needs optim.kind=adamw, got {self.optim.kind}")

    def _check_patience(self) -> None:
        if self.trainer.patience is not None and not isinstance(self.module, RobustFinetuning):
            raise ConfigError(
                f"trainer.patience waits for a better robust accuracy, and module.kind={self.module.kind} validates "
                "without; leave it out"
            )

    def _check_shares(self) -> None:
        """Where every rank holds a share of the image tower, all of them have to run it equally often."""
        if self.trainer.strategy != "fsdp":
            return
        why = "trainer.strategy=fsdp shares out the image tower alone, and"
        if not isinstance(self.module, RobustFinetuning):
            raise ConfigError(f"{why} module.kind={self.module.kind} trains or uses more; set trainer.strategy=ddp")
        objective = self.module.objective
        if isinstance(objective, (SAFT, TGAZSR)):
            raise ConfigError(
                f"{why} module.objective.kind={objective.kind} reads its weights from outside; set trainer.strategy=ddp"
            )
        if isinstance(objective, Hierarchical) and self.trainer.clip_norm is not None:
            raise ConfigError(
                f"{why} module.objective.kind={objective.kind} trains other weights beside it, so that "
                "trainer.clip_norm would clip by a part of the gradient; leave it out, or set trainer.strategy=ddp"
            )
        if self.trainer.compile != "none":
            raise ConfigError("trainer.strategy=fsdp and trainer.compile are not tested together; set one of them")
        for key, attack in self._training_attacks.items():
            if attack is not None and not isinstance(attack, NoAttack | PGD | APGD):
                raise ConfigError(
                    f"{key}.kind={attack.kind} asks the model as often as its samples need, and under "
                    "trainer.strategy=fsdp all ranks must ask alike; choose pgd or apgd, or trainer.strategy=ddp"
                )

    @property
    def _training_attacks(self) -> dict[str, Attack | None]:
        return {"attack": self.attack, "evaluation.validation_attack": self.evaluation.validation_attack}

    def _check_data(self) -> None:
        world = self.trainer.devices * self.trainer.nodes
        if self.data.batch_size % world:
            raise ConfigError(
                f"data.batch_size={self.data.batch_size} counts all ranks and must be a multiple of "
                f"trainer.devices * trainer.nodes = {world}"
            )
        paired = isinstance(self.data, ImageTextData)
        if paired != isinstance(self.module, ContrastivePretraining):
            wanted = "classification or open_world" if paired else "image_text"
            raise ConfigError(f"module.kind={self.module.kind} needs data.kind={wanted}, got {self.data.kind}")
        if not isinstance(self.module, RobustFinetuning) and not isinstance(self.attack, NoAttack):
            raise ConfigError(
                f"module.kind={self.module.kind} has no use for an attack in training; set attack.kind=none, got "
                f"{self.attack.kind}"
            )
        if paired and self.evaluation.validation_attack is not None:
            raise ConfigError(f"module.kind={self.module.kind} validates on clean pixels; leave out validation_attack")

    def _check_attacks(self) -> None:
        for key, attack in self._training_attacks.items():
            if attack is not None and labelless(attack):
                raise ConfigError(
                    f"{key}.loss={getattr(attack, 'loss', None)} is for measuring; set it to objective, with "
                    "module.objective.kind=fare where training is to keep embeddings in place"
                )
        objective = getattr(self.module, "objective", None)
        apart = isinstance(objective, Hierarchical) and objective.adversary == "per_level"
        if apart and getattr(self.attack, "loss", None) != "objective":
            raise ConfigError(
                "module.objective.adversary=per_level has an adversary raise each level's loss, and this attack raises "
                "another; set attack.kind=pgd and attack.loss=objective, or module.objective.adversary=leaf"
            )

    def _check_vaccination(self) -> None:
        if self.vaccination is None:
            if isinstance(self.module, NoFinetuning):
                raise ConfigError("module.kind=none trains nothing, and there is no vaccination; set vaccination.bank")
            return
        if isinstance(self.data, ImageTextData):
            raise ConfigError(f"vaccination needs classes, and data.kind={self.data.kind} has none; leave it out")
        self._check_calibration(self.data, self.vaccination.calibration_share)

    def _check_calibration(self, data: ClassificationData, share: float) -> None:
        if data.val_split == data.test_split:
            raise ConfigError(
                f"vaccination chooses its constants on data.val_split={data.val_split}, which is also the test split; "
                f"set data.val_split={data.train_split} and vaccination.calibration_share"
            )
        if data.val_split == data.train_split and not share:
            raise ConfigError(
                f"data.val_split={data.val_split} is the training split, so that nothing is left to calibrate on; set "
                "vaccination.calibration_share"
            )

    def _check_banks(self) -> None:
        open_world = self.evaluation.open_world
        scores = {} if open_world is None else open_world.wanted
        named = {f"evaluation.open_world.scores.{name}": getattr(score, "bank", None) for name, score in scores.items()}
        named["vaccination"] = self.vaccination.bank if self.vaccination else None
        for key, bank in named.items():
            if bank is not None and bank not in self.antibodies:
                raise ConfigError(f"{key}.bank={bank} is no bank of antibodies; {did_you_mean(bank, self.antibodies)}")
