"""Where a run writes what it measured, beside its own folder."""

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class LoggingConfig:
    """Weights & Biases mirrors the run's own files; `auto` is online where an API key is set, offline elsewhere."""

    wandb: Literal["auto", "online", "offline", "disabled"] = "auto"
    project: str = "immunoclip"
    group: str | None = None
    tags: list[str] = field(default_factory=list)
