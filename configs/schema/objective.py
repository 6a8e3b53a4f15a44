"""What robust fine-tuning minimises, and what its adversary raises. One class an objective."""

from dataclasses import dataclass, field
from typing import Literal

from configs.errors import FieldError
from configs.schema.baselines import AGFT, FARE, PMGAFT, SAFT, TGAZSR, TRADES, Attention, TeCoA
from configs.schema.checks import above, at_least

__all__ = [
    "AGFT", "FARE", "GEOMETRIES", "OBJECTIVES", "PMGAFT", "SAFT", "TGAZSR", "TRADES", "Attention", "Cosine", "Geometry",
    "Hierarchical", "Hyperbolic", "Objective", "TeCoA", "TextAttack",
]  # fmt: skip


@dataclass(frozen=True)
class TextAttack:
    """A perturbation of the prompts' token embeddings, made after the images' (the paper's delta_T).

    eps      largest change of a coordinate, in the units of the token embeddings.
    prompts  how many prompts a step perturbs, drawn from those of the batch's classes at all levels; it bounds what the
             text tower costs.
    """

    eps: float = 2e-4
    prompts: int = 32

    def __post_init__(self) -> None:
        above(0, eps=self.eps)
        at_least(1, prompts=self.prompts)


@dataclass(frozen=True)
class Hyperbolic:
    """Images and texts on a Poincare ball, compared by distance. Radii are of the mean embedding before training, as
    shares of the ball's radius; the scales that they set are trained. A model that has a hyperbolic head keeps its own.

    curvature    r: the ball's radius is 1 / sqrt(r).
    power        how much of an embedding's length becomes depth, before training, which trains it: at 0 nothing, and
                 the model classifies as it did by cosines; at 1 all of it.
    logit_scale  factor of the distance in logits before training, which trains it; null: such that the spread of the
                 logits is that of the model's own.
    """

    kind: Literal["hyperbolic"] = "hyperbolic"
    curvature: float = 1.0
    image_radius: float = 0.7
    text_radius: float = 0.7
    power: float = 0.0
    logit_scale: float | None = None

    def __post_init__(self) -> None:
        above(0, curvature=self.curvature, logit_scale=self.logit_scale)
        at_least(0, power=self.power)
        for name in ("image_radius", "text_radius"):
            if not 0 < getattr(self, name) < 1:
                raise FieldError(name, f"is a share of the ball's radius, between 0 and 1, got {getattr(self, name)}")


@dataclass(frozen=True)
class Cosine:
    """Unit vectors, compared by the model's own scaled cosine: no depth."""

    kind: Literal["cosine"] = "cosine"


Geometry = Hyperbolic | Cosine
GEOMETRIES: dict[str, type] = {"hyperbolic": Hyperbolic, "cosine": Cosine}


@dataclass(frozen=True)
class Hierarchical:
    """Cross-entropy at every level of every class tree, under one perturbation for all of them (Dong et al. 2026).

    geometry        how images and texts are compared, in training and afterwards.
    trees           names of the trees that are trained with; null: the whole forest. Evaluation asks about all of them.
    level_weights   of level 0 (leaves), 1, ..., and 0 beyond the last one given; null: 1 - l / (L + 1) at level l of a
                    tree with L levels above its leaves. The leaves, which all trees share, count once a tree.
    parents         what stands for an image at the levels above: the midpoint of the batch's images of the same class,
                    over all ranks and level by level, or the image itself.
    negatives       classes of neighbouring levels, without an edge to the right one, that join the denominator of the
                    softmax.
    adversary       one perturbation that raises the loss of all levels, of the leaves alone, or one each per level; an
                    attack with another loss than `objective` raises its own, of the leaves.
    train_text      whether the text tower's projection is trained with the image tower.
    text_lr_factor  its learning rate, over the image tower's.
    text_attack     null: texts are safe.
    vic_weight      lambda_1, of the distance between an adversarial image and its class text beyond `vic_radius`.
    vic_radius      zeta_vic, in the units of the geometry's distance; 1 - cosine seldom reaches the default.
    gap_weight      lambda_2, of parents whose norm isn't below their child's by `gap`; hyperbolic geometry only. While
                    `geometry.power` is 0 all texts have one norm, and it moves nothing but the power.
    gap             zeta_gap, as a share of the ball's radius.
    gap_images      what the norm order asks of images: that a parent's midpoint lies below its children's (`parents`),
                    or that each lies above its class text (`texts`).
    clean_weight    weight of the same loss on clean images.
    """

    kind: Literal["hierarchical"] = "hierarchical"
    geometry: Geometry = field(default_factory=Hyperbolic)
    trees: list[str] | None = None
    level_weights: list[float] | None = None
    parents: Literal["midpoint", "image"] = "midpoint"
    negatives: Literal["none", "below", "above", "both"] = "both"
    adversary: Literal["universal", "leaf", "per_level"] = "universal"
    train_text: bool = True
    text_lr_factor: float = 1.0
    text_attack: TextAttack | None = None
    vic_weight: float = 0.1
    vic_radius: float = 1.0
    gap_weight: float = 0.1
    gap: float = 0.05
    gap_images: Literal["parents", "texts"] = "parents"
    clean_weight: float = 0.0

    def __post_init__(self) -> None:
        at_least(0, clean_weight=self.clean_weight, vic_weight=self.vic_weight, vic_radius=self.vic_radius)
        at_least(0, gap_weight=self.gap_weight, gap=self.gap)
        above(0, text_lr_factor=self.text_lr_factor)
        weights = self.level_weights
        if weights is not None and (min(weights, default=-1) < 0 or sum(weights) <= 0):
            raise FieldError(
                "level_weights", f"has one weight of at least 0 per level, not all of them 0, got {weights}"
            )
        if isinstance(self.geometry, Cosine) and self.parents == "midpoint":
            raise FieldError("parents", "are midpoints in hyperbolic geometry only; use parents=image with cosines")


Objective = TeCoA | FARE | PMGAFT | TGAZSR | AGFT | SAFT | TRADES | Hierarchical
OBJECTIVES: dict[str, type] = {
    "tecoa": TeCoA,
    "fare": FARE,
    "pmg_aft": PMGAFT,
    "tga_zsr": TGAZSR,
    "agft": AGFT,
    "saft": SAFT,
    "trades": TRADES,
    "hierarchical": Hierarchical,
}
