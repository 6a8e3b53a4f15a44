"""Vaccination: an adapter on frozen image embeddings that is pulled to its class and pushed away from antibodies."""

from dataclasses import dataclass, field
from typing import Literal

from configs.errors import FieldError
from configs.schema.checks import above, at_least, fraction


@dataclass(frozen=True)
class ConstrainedPrototypes:
    """The mean image of a class, turned towards its text until the two are `angle` degrees apart.

    angle  xi. Images and texts of CLIP are 70 to 80 degrees apart, and of a class no nearer.
    """

    kind: Literal["constrained"] = "constrained"
    angle: float = 40.0

    def __post_init__(self) -> None:
        if not 0 <= self.angle <= 180:
            raise FieldError("angle", f"is in degrees, from 0 to 180, got {self.angle}")


@dataclass(frozen=True)
class MixedPrototypes:
    """alpha * text + (1 - alpha) * mean image, both of unit length; one alpha for all classes."""

    kind: Literal["mixed"] = "mixed"
    alpha: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 1:
            raise FieldError("alpha", f"is the text's share, from 0 to 1, got {self.alpha}")


@dataclass(frozen=True)
class TextPrototypes:
    """The text of a class alone; images only say how concentrated it is."""

    kind: Literal["text"] = "text"


@dataclass(frozen=True)
class VisualPrototypes:
    """The mean image of a class alone."""

    kind: Literal["visual"] = "visual"


Prototypes = MixedPrototypes | ConstrainedPrototypes | TextPrototypes | VisualPrototypes
PROTOTYPES: dict[str, type] = {
    "mixed": MixedPrototypes,
    "constrained": ConstrainedPrototypes,
    "text": TextPrototypes,
    "visual": VisualPrototypes,
}


@dataclass(frozen=True)
class FeatureAttack:
    """Training on the worst embeddings within a ball instead of the clean ones.

    eps    L2 radius around an embedding of unit length.
    steps  of gradient ascent; 1 goes to the edge at once.
    """

    eps: float = 0.1
    steps: int = 1

    def __post_init__(self) -> None:
        above(0, eps=self.eps)
        at_least(1, steps=self.steps)


@dataclass(frozen=True)
class VaccinationConfig:
    """Runs on cached embeddings of the training and the validation split; no other split is ever opened.

    Whitening, margin, strength and lambda are chosen where some classes are held out, with their images and antibodies:
    images of these classes then stand for the unknown. The whitening comes first, without the adapter.

    bank               antibodies to vaccinate with, by their name in `antibodies`.
    shots              training images per class that are learnt from, drawn by the run's seed; null = all.
    whitenings         powers of the covariance within classes that embeddings are divided by, to choose from: 0 leaves
                       them as they are, which is the paper's; 1 makes classes round.
    transplanted       whether antibodies are moved across the gap between texts and images, to where images of what
                       they say would be (ours); otherwise they stay where their texts are, which is the paper's.
    prototypes         what stands for a class where nothing is whitened; elsewhere it is the mean image.
    kappa              how sharp the pull is: the model's own logit scale, one concentration estimated over all classes,
                       or one per class.
    hidden             width of the adapter's hidden layer.
    push               which antibodies push an image: those of its class and of none, the nearest of the bank, or all.
    push_weight        lambda, of the push beside the pull; 0: no push.
    margins            cosines beyond which an antibody pushes, to choose from; each costs a training.
    strengths          factors of what the adapter adds to an embedding once it is trained, to choose from; 0 leaves
                       embeddings as they are.
    lambdas            weights of the most dangerous antibody in the score, to choose from.
    danger             which antibodies the score looks at: the predicted class's own and those of no class, or all.
    held_out           share of the classes that stand for the unknown at a time, until each has done so once.
    calibration_share  of each class's training images: left out of training, calibrated on beside the validation split.
    tail               share of the lowest scores that a Weibull distribution is fitted to.
    tail_samples       distinct scores that a tail must have; a class with fewer takes the tail of all classes together.
    rejected           share of in-distribution images that the thresholds turn away; below `tail`.
    recalibration      what makes scores of different classes comparable: the distance to the class's threshold, or the
                       log probability of its Weibull tail.
    adversarial        null: clean embeddings.
    batch_size         embeddings over all ranks.
    precision          of the cached embeddings.
    cache              folder of the cached embeddings.
    """

    bank: str = "???"
    shots: int | None = None
    whitenings: list[float] = field(default_factory=lambda: [0.0, 0.5, 0.75, 1.0])
    transplanted: bool = True
    prototypes: Prototypes = field(default_factory=MixedPrototypes)
    kappa: Literal["model", "shared", "class"] = "model"
    hidden: int = 128
    push: Literal["own", "hardest", "all"] = "hardest"
    push_weight: float = 1.0
    margins: list[float] = field(default_factory=lambda: [0.2, 0.4])
    strengths: list[float] = field(default_factory=lambda: [0.0, 0.1, 0.25, 0.5, 1.0])
    lambdas: list[float] = field(default_factory=lambda: [0.0, 0.1, 0.25, 0.5, 0.75, 1.0])
    danger: Literal["own", "global"] = "global"
    held_out: float = 0.25
    calibration_share: float = 0.0
    tail: float = 0.1
    tail_samples: int = 10
    rejected: float = 0.05
    recalibration: Literal["threshold", "weibull"] = "threshold"
    adversarial: FeatureAttack | None = None
    epochs: int = 5
    batch_size: int = 256
    lr: float = 1e-3
    weight_decay: float = 1e-2
    precision: Literal["float16", "float32"] = "float32"
    cache: str = ".cache/features"

    def __post_init__(self) -> None:
        at_least(1, shots=self.shots, hidden=self.hidden, epochs=self.epochs, batch_size=self.batch_size)
        at_least(2, tail_samples=self.tail_samples)
        at_least(0, push_weight=self.push_weight, weight_decay=self.weight_decay)
        above(0, lr=self.lr, held_out=self.held_out, tail=self.tail, rejected=self.rejected)
        fraction(held_out=self.held_out, calibration_share=self.calibration_share, tail=self.tail)
        if self.rejected >= self.tail:
            raise FieldError("rejected", f"must be below tail = {self.tail}, got {self.rejected}")
        self._check_grids()

    def _check_grids(self) -> None:
        grids = (
            ("whitenings", self.whitenings, 0.0),
            ("margins", self.margins, -1.0),
            ("strengths", self.strengths, 0.0),
            ("lambdas", self.lambdas, 0.0),
        )
        for name, values, low in grids:
            if not values or len(set(values)) < len(values):
                raise FieldError(name, f"needs at least one value, each once, got {values}")
            for value in values:
                at_least(low, **{name: value})
