"""How training runs: devices, precision, length, checkpoints."""

from dataclasses import dataclass
from typing import Literal

from configs.errors import FieldError
from configs.schema.checks import above, at_least


@dataclass(frozen=True)
class TrainerConfig:
    """Lightning's Trainer, and how often a run saves itself. `steps` are steps of the optimiser.

    strategy                auto: DDP on more than one device. fsdp: every device holds a share of the image tower's
                            weights, gradients and optimiser state, and gathers a block when its turn comes (FSDP2).
                            For towers whose training does not fit one device; each step of an attack communicates.
    precision               of the towers. Attacks, heads, losses and the normalisation of pixels stay in float32. Under
                            bf16-true the weights themselves are bfloat16, and steps below 1/256 of a weight are lost.
    accumulate              batches per step of the optimiser.
    gradient_checkpointing  keeps the inputs of the image tower's blocks alone, and computes the rest again when a
                            gradient asks for it: less memory, a third more time, the same numbers.
    compile                 default: torch.compile takes the blocks of the image tower, in training and in its attacks;
                            sums are then in another order.
    ema                     decay of an exponential moving average of what is trained, which is validated and exported
                            in its place.
    patience                validations without a better robust accuracy that end the run; the weights of the best one
                            are exported.
    """

    steps: int = 1000
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    devices: int = 1  # per node
    nodes: int = 1
    strategy: Literal["auto", "ddp", "fsdp"] = "auto"
    precision: Literal["32-true", "bf16-mixed", "bf16-true"] = "32-true"
    accumulate: int = 1
    clip_norm: float | None = None
    gradient_checkpointing: bool = False
    compile: Literal["none", "default"] = "none"
    ema: float | None = None
    patience: int | None = None
    checkpoint_every: int = 200  # steps
    validate_every: int = 0  # steps; 0 = never
    log_every: int = 10  # steps
    wall_minutes: float | None = None
    deterministic: bool = False
    threads: int | None = None  # intra-op threads on a CPU; null: torch's choice

    def __post_init__(self) -> None:
        at_least(1, steps=self.steps, devices=self.devices, nodes=self.nodes, accumulate=self.accumulate)
        at_least(1, checkpoint_every=self.checkpoint_every, log_every=self.log_every, threads=self.threads)
        at_least(1, patience=self.patience)
        at_least(0, validate_every=self.validate_every)
        above(0, clip_norm=self.clip_norm, wall_minutes=self.wall_minutes)
        if self.ema is not None and not 0 < self.ema < 1:
            raise FieldError("ema", f"must be between 0 and 1, such as 0.999, got {self.ema}")
        if self.patience is not None and not 0 < self.validate_every <= self.steps:
            raise FieldError("patience", "counts validations, and there are none; set validate_every within steps")
