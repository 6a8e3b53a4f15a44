"""Open-world scores: a number an image, higher = more in-distribution. One class a score, with its published defaults.

Temperatures and the like are fixed beforehand, and never chosen on an OOD test set. `bank` names one of `antibodies`.
"""

from dataclasses import dataclass
from typing import Literal

from configs.errors import FieldError
from configs.schema.checks import above, at_least


@dataclass(frozen=True)
class MSP:
    """Maximum softmax probability of the model's own logits (Hendrycks & Gimpel 2017)."""

    kind: Literal["msp"] = "msp"


@dataclass(frozen=True)
class MaxLogit:
    """The largest logit (Hendrycks et al. 2022), here without the model's scale, which changes no order: the largest
    cosine."""

    kind: Literal["max_logit"] = "max_logit"


@dataclass(frozen=True)
class Energy:
    """T logsumexp(logits / T) (Liu et al. 2020), the logits as the model scales them."""

    kind: Literal["energy"] = "energy"
    temperature: float = 1.0

    def __post_init__(self) -> None:
        above(0, temperature=self.temperature)


@dataclass(frozen=True)
class MCM:
    """Maximum concept matching: maximum softmax probability of raw cosines (Ming et al. 2022)."""

    kind: Literal["mcm"] = "mcm"
    temperature: float = 1.0

    def __post_init__(self) -> None:
        above(0, temperature=self.temperature)


@dataclass(frozen=True)
class NegLabel:
    """The in-distribution share of the softmax over classes and a group of negatives, mean over groups (Jiang et al.
    2024). CSP (Chen et al. 2024) is this score on a bank of its own.

    groups  how many the bank is dealt into; no more than it has antibodies.
    """

    kind: Literal["neglabel"] = "neglabel"
    bank: str = "???"
    groups: int = 100
    temperature: float = 0.01

    def __post_init__(self) -> None:
        at_least(1, groups=self.groups)
        above(0, temperature=self.temperature)


@dataclass(frozen=True)
class EOE:
    """Envisioned outliers (Cao et al. 2024): classes against outlier texts.

    form         penalty: largest probability of a class minus `beta` times an outlier's, the paper's own; max: MCM
                 where a class is the nearest text, 1 / classes where an outlier is; msp: largest probability of a
                 class, among all; energy: the classes' minus the outliers'; max_logit: largest cosine, class minus
                 outlier.
    beta         weight of the outliers in `penalty`.
    temperature  null: 1, and 0.01 for the form energy, as the authors have it.
    """

    kind: Literal["eoe"] = "eoe"
    bank: str = "???"
    form: Literal["penalty", "max", "msp", "energy", "max_logit"] = "penalty"
    beta: float = 0.25
    temperature: float | None = None

    def __post_init__(self) -> None:
        at_least(0, beta=self.beta)
        above(0, temperature=self.temperature)


@dataclass(frozen=True)
class CLIPN:
    """CLIP that says no (Wang et al. 2023): each class's text against the 'no' text of the same class.

    form      ctw: competing to win; atd: agreeing to differ.
    features  a safetensors file with one tensor (classes, D): embeddings of the 'no' texts, in the classes' order.
    """

    kind: Literal["clipn"] = "clipn"
    form: Literal["ctw", "atd"] = "atd"
    features: str = "???"


@dataclass(frozen=True)
class AdaNeg:
    """NegLabel whose texts move towards the test images that look like them (Zhang & Zhang 2024). It learns from the
    test images: a score depends on the images before it and on those in its batch, and can't be attacked.

    length     features that a text's memory holds, its own included.
    threshold  between in-distribution and OOD on NegLabel's scale.
    gap        how sure a score must be for its image to be remembered: nearer to 0 or 1 than this share of the way from
               the threshold.
    weight     of the score without memory, which is added.
    """

    kind: Literal["ada_neg"] = "ada_neg"
    bank: str = "???"
    groups: int = 5
    length: int = 10
    threshold: float = 0.5
    gap: float = 0.5
    weight: float = 0.1

    def __post_init__(self) -> None:
        at_least(1, groups=self.groups)
        at_least(2, length=self.length)
        at_least(0, weight=self.weight)
        for name in ("threshold", "gap"):
            if not 0 <= getattr(self, name) <= 1:
                raise FieldError(name, f"must be in [0, 1], got {getattr(self, name)}")


@dataclass(frozen=True)
class KNN:
    """Minus the distance to the k-th nearest training image, by unit features (Sun et al. 2022)."""

    kind: Literal["knn"] = "knn"
    k: int = 50

    def __post_init__(self) -> None:
        at_least(1, k=self.k)


@dataclass(frozen=True)
class Mahalanobis:
    """Minus the squared distance to the nearest class's mean, under one covariance for all classes of training images
    (Lee et al. 2018)."""

    kind: Literal["mahalanobis"] = "mahalanobis"


@dataclass(frozen=True)
class ViM:
    """Energy minus a virtual logit: what of a feature is outside of the training images' principal space (Wang et al.
    2022).

    dimension  of the principal space; null: half of the features'. The paper has 512 for 768 and more.
    """

    kind: Literal["vim"] = "vim"
    dimension: int | None = None

    def __post_init__(self) -> None:
        at_least(1, dimension=self.dimension)


@dataclass(frozen=True)
class SDis:
    """The vaccinated model's own: nearest prototype minus the most dangerous antibody (Fang et al. 2026).

    recalibrated  whether each class's Weibull makes scores of different classes comparable.
    """

    kind: Literal["s_dis"] = "s_dis"
    recalibrated: bool = False


Score = MSP | MaxLogit | Energy | MCM | NegLabel | EOE | CLIPN | AdaNeg | KNN | Mahalanobis | ViM | SDis
SCORES: dict[str, type] = {
    "msp": MSP,
    "max_logit": MaxLogit,
    "energy": Energy,
    "mcm": MCM,
    "neglabel": NegLabel,
    "eoe": EOE,
    "clipn": CLIPN,
    "ada_neg": AdaNeg,
    "knn": KNN,
    "mahalanobis": Mahalanobis,
    "vim": ViM,
    "s_dis": SDis,
}
