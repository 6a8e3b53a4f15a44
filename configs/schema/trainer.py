"""How training runs: devices, precision, length, checkpoints."""

from dataclasses import dataclass
from typing import Literal

from configs.schema.checks import above, at_least


@dataclass(frozen=True)
class TrainerConfig:
    """Lightning's Trainer, and how often a run saves itself. `steps` are steps of the optimiser."""

    steps: int = 1000
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    devices: int = 1  # per node
    nodes: int = 1
    strategy: Literal["auto", "ddp"] = "auto"
    precision: Literal["32-true", "bf16-mixed", "bf16-true"] = "32-true"
    accumulate: int = 1  # batches per step of the optimiser
    clip_norm: float | None = None
    checkpoint_every: int = 200  # steps
    validate_every: int = 0  # steps; 0 = never
    log_every: int = 10  # steps
    deterministic: bool = False
    threads: int | None = None  # intra-op threads on a CPU; null: torch's choice

    def __post_init__(self) -> None:
        at_least(1, steps=self.steps, devices=self.devices, nodes=self.nodes, accumulate=self.accumulate)
        at_least(1, checkpoint_every=self.checkpoint_every, log_every=self.log_every, threads=self.threads)
        at_least(0, validate_every=self.validate_every)
        above(0, clip_norm=self.clip_norm)
