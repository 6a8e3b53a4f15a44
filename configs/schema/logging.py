"""Where a run writes what it measured, beside its own folder."""

from dataclasses import dataclass, field
from typing import Literal

from configs.schema.checks import above


@dataclass(frozen=True)
class LoggingConfig:
    """Weights & Biases mirrors the run's own files; `auto` is online where an API key is set, offline elsewhere.

    What was kept offline becomes one W&B run, however many attempts it took: wandb sync --include-online RUN/wandb

    group         null: the sweep that the run belongs to, or else the experiment.
    tags          such as what an ablation varies. The tag `stop`, put on the W&B run by a person, ends its training.
    upload_model  whether the trained model is kept there as well; checkpoints of training stay where they are.
    patience      seconds that uploads may keep a run waiting when it ends; what is missing then is kept for
                  `wandb sync`. A server that does not answer is left alone sooner.
    """

    wandb: Literal["auto", "online", "offline", "disabled"] = "auto"
    project: str = "immunoclip"
    group: str | None = None
    tags: list[str] = field(default_factory=list)
    upload_model: bool = True
    patience: float = 300.0

    def __post_init__(self) -> None:
        above(0, patience=self.patience)
