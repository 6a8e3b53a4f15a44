"""A trained model as one function of pixels, which needs neither its text tower nor this project to answer."""

from collections.abc import Sequence
from typing import BinaryIO

import torch
from torch import Tensor, nn
from torch.export import Dim

from lightning_modules.backbones import Backbone, class_features
from lightning_modules.backbones.backbone import embed
from lightning_modules.heads import CosineHead, Head, classify
from lightning_modules.hierarchy import Forest
from lightning_modules.open_world.immunity import Immunity

ROUNDING = 1e-3  # beyond [0, 1], of an adversary's sums
Answers = dict[str, Tensor]


class Deployed(nn.Module):
    """The zero-shot classifier of a backbone, and its reject option where it was vaccinated.

    Shapes: B images, K classes, M levels of the forest, N antibodies, D dimensions.

    forward(pixels) takes float32 (B, 3, size, size) in [0, 1], normalises inside, and gives, (B,) each:

    class       int64, by the largest posterior: of the class texts, or of the prototypes of a vaccinated model.
    levels      int64 (B, M): its ancestor at each level, the index among that level's classes; the class itself first.
    confidence  float32, that posterior; calibrated on clean pictures where the immunity has a temperature, else not.

    and of a vaccinated model as `Immunity` has them

    score       float32, S_DIS: higher = more in-distribution.
    threshold   float32, of the class.
    accept      bool, score >= threshold.
    antibody    int64, the nearest that counts for the class; -1 where there is none.

    Everything is differentiable in the pixels as far as it can be, so that a deployed model can be attacked as it is.

    Raises:
        DataError: the immunity is of other classes.
        RuntimeError: on a call with pixels outside [0, 1], such as bytes.
    """

    mean: Tensor
    std: Tensor
    texts: Tensor
    lineages: Tensor

    def __init__(self, backbone: Backbone, forest: Forest, templates: Sequence[str]) -> None:
        """
        Args:
            backbone: its image tower becomes this module's, frozen and in eval mode.
            forest: over the classes.
            templates: prompts with {c} for the class name.
        """
        super().__init__()
        self.visual, self.image_size = backbone.visual, backbone.image_size
        self.immunity = backbone.immunity
        self.hyperbolic = backbone.hyperbolic if self.immunity is None else None  # prototypes are compared by cosines
        if self.immunity is not None:
            self.immunity.require(forest.leaves, self.immunity.adapter.dimension)
        lineages = torch.tensor([level.ancestors for level in forest.levels]).T
        buffers = {"mean": backbone.mean, "std": backbone.std, "lineages": lineages.contiguous()}
        if self.immunity is None:  # which has prototypes instead
            scale = torch.as_tensor(backbone.head.scale).detach().float()
            buffers |= {"texts": class_features(backbone, forest.leaves, templates), "scale": scale}
        for name, value in buffers.items():
            self.register_buffer(name, value.detach().clone())
        self.eval().requires_grad_(False)

    @property
    def head(self) -> Head:
        """What compares images with class texts, where the model was not vaccinated."""
        return CosineHead(self.get_buffer("scale")) if self.hyperbolic is None else self.hyperbolic

    def forward(self, pixels: Tensor) -> Answers:
        """See the class."""
        low, high = pixels.amin() >= -ROUNDING, pixels.amax() <= 1 + ROUNDING
        torch._assert_async(low & high, "pixels must lie in [0, 1]; divide bytes by 255")
        embeddings = embed(self.visual, (pixels - self.mean) / self.std)
        if self.immunity is None:
            logits = classify(self.head, embeddings, self.texts)
            return self._named(logits.softmax(dim=1))
        points = self.immunity.adapt(embeddings)
        answers = self._named(self.immunity.posterior(points))
        return answers | _rejection(self.immunity, points, answers["class"])

    def _named(self, posterior: Tensor) -> Answers:
        confidence, classes = posterior.max(dim=1)
        return {"class": classes, "levels": self.lineages[classes], "confidence": confidence}


def _rejection(immunity: Immunity, points: Tensor, classes: Tensor) -> Answers:
    """As `Immunity.score` and `accept`, in one matrix of cosines (B, N), which a program of any batch size can have."""
    score, threshold = immunity.similarities(points).amax(dim=1), immunity.threshold[classes]
    antibody = torch.full_like(classes, -1)
    if len(immunity.antibodies):
        cosines = points @ immunity.antibodies.T
        if immunity.danger == "own":
            own = (immunity.owners == classes[:, None]) | (immunity.owners < 0)
            own = own | ~own.any(dim=1, keepdim=True)
            cosines = cosines.masked_fill(~own, -torch.inf)
        danger, antibody = cosines.max(dim=1)
        score = score - immunity.lambda_inf * danger
    return {"score": score, "threshold": threshold, "accept": score >= threshold, "antibody": antibody}


def save_program(deployed: Deployed, file: BinaryIO) -> None:
    """Writes it for `torch.export.load`, which runs it without this project; batches of any size from 1 up.

    The program's device is the module's, the processor unless it was moved.
    """
    example = torch.full((2, 3, deployed.image_size, deployed.image_size), 0.5, device=deployed.mean.device)
    with torch.no_grad():
        program = torch.export.export(deployed, (example,), dynamic_shapes={"pixels": {0: Dim("batch", min=1)}})
    torch.export.save(program, file)
