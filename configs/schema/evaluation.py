"""What is measured, and under which attacks."""

from dataclasses import dataclass, field
from typing import Literal

from configs.errors import FieldError
from configs.schema.attack import Attack
from configs.schema.checks import at_least
from configs.schema.open_world import OpenWorldConfig
from configs.schema.superclass import SuperclassEvaluation


@dataclass(frozen=True)
class EvaluationConfig:
    """Clean accuracy is always measured; each attack adds its own rows, per level of every tree of the data set.

    samples             labelled samples, evenly spread over the split; null = all.
    attacked_samples    how many of them the attacks see; null = all.
    attacks             name -> setting, or the name of a file below configs/attack; in the order in which they run.
    all_levels          whether every attack first spends its whole budget on each image, and so has figures for the
                        superclasses; otherwise a scheduled attack leaves an image whose leaf falls, which is faster.
    slots               images in a batch of the attacked model; a sample that falls makes room for the next.
    precision           of the attacks' forward passes. Under bf16 a success counts once fp32 confirms it.
    compile             whether torch.compile takes the model that is attacked, and as CUDA graphs on a GPU.
    reuse               whether a sample that fell within a smaller radius of the same attack counts as fallen within a
                        larger one, which it is, and is not attacked again.
    checks              whether each attacked figure is tested for signs that it should not be believed.
    check_samples       how many samples those tests see.
    save_adversarial    how adversarial images are kept, as shards beside the results; uint8 rounds them.
    validation_attack   what validation during training attacks with; null: the training attack.
    validation_samples  how many samples of the validation split it sees, always the same ones; null = all.
    inference           how images and texts are compared: as the model was trained, or by cosines. What is reported is
                        what is attacked.
    eps_sweep_255       PGD radii for the accuracy-by-eps curve, with `attacked_samples` samples.
    pictures            how many clean / adversarial pairs are kept for the report.
    superclass          attacks on each level of `hierarchy` and their effect on all others; null leaves them out.
    open_world          scores that tell what is not in-distribution, and attacks on them; null leaves them out.
    """

    split: Literal["val", "test"] = "test"
    batch_size: int = 256
    samples: int | None = None
    attacked_samples: int | None = None
    attacks: dict[str, Attack] = field(default_factory=dict)
    all_levels: bool = False
    slots: int = 128
    precision: Literal["fp32", "bf16"] = "fp32"
    compile: Literal["none", "default", "cuda_graphs"] = "none"
    reuse: bool = True
    checks: bool = True
    check_samples: int = 64
    save_adversarial: Literal["none", "uint8", "fp16", "fp32"] = "none"
    validation_attack: Attack | None = None
    validation_samples: int | None = None
    inference: Literal["own", "cosine"] = "own"
    eps_sweep_255: list[float] = field(default_factory=list)
    pictures: int = 0
    superclass: SuperclassEvaluation | None = None
    open_world: OpenWorldConfig | None = field(default_factory=OpenWorldConfig)

    def __post_init__(self) -> None:
        at_least(1, batch_size=self.batch_size, samples=self.samples, attacked_samples=self.attacked_samples)
        at_least(1, slots=self.slots, check_samples=self.check_samples, validation_samples=self.validation_samples)
        at_least(0, pictures=self.pictures)
        for eps in self.eps_sweep_255:
            at_least(0, eps_sweep_255=eps)
        if len(set(self.eps_sweep_255)) < len(self.eps_sweep_255):
            raise FieldError("eps_sweep_255", f"has an entry twice, got {self.eps_sweep_255}; name each once")
