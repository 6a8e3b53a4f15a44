"""GPUs by name, and how fast they could be."""

from dataclasses import dataclass
from typing import Literal

from configs.errors import ConfigError, did_you_mean

GB = 1e9
TERA = 1e12

Precision = Literal["bf16", "fp32"]


@dataclass(frozen=True)
class Accelerator:
    """What the maker promises of one GPU, without sparsity.

    bf16    FLOP/s of matrix products on the tensor cores, summed in float32.
    fp32    FLOP/s in plain float32: what torch computes `32-true` in, since TF32 is off unless asked for.
    memory  bytes.
    """

    bf16: float
    fp32: float
    memory: float

    def peak(self, precision: Precision) -> float:
        """FLOP/s."""
        return self.bf16 if precision == "bf16" else self.fp32


# NVIDIA's data sheets, which print the tensor cores' rates with 2:4 sparsity: halved here, except where the sheet gives
# both. A100, A10, L4, L40S: nvidia.com/en-us/data-center/{a100,a10-gpu,l4,l40s}. H100, H200 (SXM): "NVIDIA H100 Tensor
# Core GPU" (1,979 with sparsity), "NVIDIA H200 Tensor Core GPU". RTX 3090, 4090: the GA102 and Ada whitepapers' tables
# "Peak BF16 Tensor TFLOPS with FP32 Accumulate".
ACCELERATORS = {
    "a10": Accelerator(125 * TERA, 31.2 * TERA, 24 * GB),
    "a100": Accelerator(312 * TERA, 19.5 * TERA, 80 * GB),
    "h100": Accelerator(989 * TERA, 67 * TERA, 80 * GB),
    "h200": Accelerator(989 * TERA, 67 * TERA, 141 * GB),
    "l4": Accelerator(121 * TERA, 30.3 * TERA, 24 * GB),
    "l40s": Accelerator(362 * TERA, 91.6 * TERA, 48 * GB),
    "rtx3090": Accelerator(71 * TERA, 35.6 * TERA, 24 * GB),
    "rtx4090": Accelerator(165.2 * TERA, 82.6 * TERA, 24 * GB),
}


@dataclass(frozen=True)
class Machine:
    """The GPU that a plan is made for.

    Raises:
        ConfigError: no such GPU, or no such share.

    gpu  a name in `ACCELERATORS`.
    mfu  share of its peak rate that is reached: an assumption. `bench train-step` measures the real one.
    """

    gpu: str = "h100"
    mfu: float = 0.35

    def __post_init__(self) -> None:
        if self.gpu not in ACCELERATORS:
            raise ConfigError(
                f"--gpu={self.gpu} is not in the table of peak rates; {did_you_mean(self.gpu, ACCELERATORS)}"
            )
        if not 0 < self.mfu <= 1:
            raise ConfigError(f"--mfu={self.mfu} must be a share of the peak rate, above 0 and at most 1")

    @property
    def accelerator(self) -> Accelerator:
        return ACCELERATORS[self.gpu]

    def seconds(self, flops: float, precision: Precision) -> float:
        """That one GPU takes."""
        return flops / (self.accelerator.peak(precision) * self.mfu)
