"""How deep a hyperbolic model puts each level of its class trees, and what margin that depth leaves room for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp

import numpy as np
from matplotlib.figure import Figure

from experiments.analysis import figure, names, page
from experiments.analysis.disc import discs
from experiments.analysis.loading import Evidence, Floats

Curves = Mapping[str, tuple[Floats, Floats]]
COLOURS = (figure.BLUE, figure.GREEN, figure.ORANGE, figure.VERMILLION, figure.PURPLE, figure.SKY)  # from the leaves up
MARKERS = "osD^vPX"
CURVES = (
    "Mean norm of the class texts of each level, and of clean training images (dashed), as a share of the ball's "
    "radius: 0 is the root, 1 the rim. General classes should lie below specific ones."
)
MARGINS = (
    "The largest difference that two logits can have, by depth: in the ball, (4 s / sqrt r) artanh(sqrt r norm), and "
    "of inner products of vectors as long, 2 s norm squared, with the trained scale s. Marks: where the levels ended, "
    "with norm and margin. It is how much room a level has, not how robust it is."
)
CLASSES = (
    "Each class of the trees at the norm of its text, as a share of the ball's radius; angles are of the drawing. A "
    "tree that the model has learnt has its root side near the centre."
)
DEEPEST = 0.995  # of the ball's radius, as far as margins are drawn: they grow without bound towards 1


@dataclass(frozen=True)
class Depth:
    """A column `depth/KIND/LEVEL` of metrics.csv: mean norm of texts or images, as a share of the ball's radius.

    kind   text or image.
    tree   None for the leaves, which all trees share.
    level  0 = leaves.
    """

    kind: str
    tree: str | None
    level: int
    steps: Floats
    norms: Floats

    @property
    def label(self) -> str:
        """`wordnet 2`, or `leaf, images`."""
        return names.level(self.tree, self.level) + (", images" if self.kind == "image" else "")

    @property
    def colour(self) -> str:
        """By level; the leaves are dark."""
        return COLOURS[(self.level - 1) % len(COLOURS)] if self.level else figure.INK


def depths(curves: Curves) -> list[Depth]:
    """In the order of the columns: leaf first, then each tree's levels from its lowest up."""
    return [_depth(name, *curve) for name, curve in curves.items() if name.startswith("depth/") and len(curve[0])]


def depth_parts(curves: Curves, head: Mapping[str, float], trained: Evidence | None = None) -> list[str]:
    """Parts of a page; none where nothing hyperbolic was trained.

    Args:
        head: curvature and log_logit_scale of the trained head; empty where there is none yet.
        trained: what was found of the trained model, with the depth of each class.
    """
    found = depths(curves)
    drawn = [(depth_curves(found), "Depth of each level through training", CURVES)]
    if head:
        drawn.append((margins(found, head["curvature"], exp(head["log_logit_scale"])), "Margin by depth", MARGINS))
    if trained is not None and trained.depths:
        drawn.append((discs(trained.trees, trained.depths), "Depth of each class", CLASSES))
    return [page.picture(figure.svg(drawing), title, caption) for drawing, title, caption in drawn if drawing]


@figure.styled
def depth_curves(found: Sequence[Depth]) -> Figure | None:
    """Norm against training step: a panel a tree, a colour a level, images dashed."""
    if not found:
        return None
    trees: list[str | None] = list(dict.fromkeys(depth.tree for depth in found if depth.tree)) or [None]
    drawing, panels = figure.new(4.0, columns=len(trees))
    for axes, tree in zip(panels, trees, strict=True):
        for depth in (depth for depth in found if depth.tree in (None, tree)):
            style = "--" if depth.kind == "image" else "-"
            axes.plot(depth.steps, depth.norms, color=depth.colour, linestyle=style, label=depth.label, linewidth=1.8)
        axes.set_title(tree or "")
        axes.set_xlabel("step")
        axes.grid(axis="y", color=figure.GRID)
        axes.set_ylim(*_limits(found))
        axes.legend(fontsize=9, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.2))
    panels[0].set_ylabel("norm, of the ball's radius")
    return drawing


@figure.styled
def margins(found: Sequence[Depth], curvature: float, scale: float) -> Figure | None:
    """Hyperbolic and Euclidean margin, in logits, against the norm, with a mark at each level's last one."""
    if not found:
        return None
    shares = np.linspace(0, DEEPEST, 400)
    hyperbolic, euclidean = _margins(shares, curvature, scale)
    drawing, (axes,) = figure.new(4.4)
    axes.plot(shares, hyperbolic, color=figure.MUTED, label="hyperbolic")
    axes.plot(shares, euclidean, color=figure.MUTED, linestyle="--", label="Euclidean")
    trees = list(dict.fromkeys(depth.tree for depth in found))
    for depth in found:
        norm = depth.norms[-1:]
        margin, _ = _margins(norm, curvature, scale)
        face = "white" if depth.kind == "image" else depth.colour
        label = f"{depth.label}: {norm[0]:.2f}, {margin[0]:.3g}"
        axes.plot(
            norm, margin, MARKERS[trees.index(depth.tree) % len(MARKERS)], color=depth.colour, mfc=face, label=label
        )
    axes.set(xlim=(0, 1), ylim=(0, None), xlabel="norm, of the ball's radius", ylabel="margin, logits")
    axes.grid(color=figure.GRID)
    axes.legend(loc="upper left", fontsize=9, ncols=2)
    return drawing


def _margins(shares: Floats, curvature: float, scale: float) -> tuple[Floats, Floats]:
    """Hyperbolic and Euclidean, (...), of norms that are `shares` (...) of the ball's radius."""
    import torch  # slow to import, and most reports have no use for it

    from lightning_modules.geometry import PoincareBall, euclidean_margin, hyperbolic_margin

    ball = PoincareBall(curvature)
    norms = torch.from_numpy(shares) * ball.radius
    return hyperbolic_margin(norms, scale, ball).numpy(), euclidean_margin(norms, scale).numpy()


def _limits(found: Sequence[Depth]) -> tuple[float, float]:
    """The same for all panels."""
    norms = np.concatenate([depth.norms for depth in found])
    return float(norms.min()) - 0.02, float(norms.max()) + 0.02


def _depth(name: str, steps: Floats, norms: Floats) -> Depth:
    _, kind, level = name.split("/", 2)
    tree, dot, number = level.rpartition(".")
    return Depth(kind, tree if dot else None, int(number) if dot else 0, steps, norms)
