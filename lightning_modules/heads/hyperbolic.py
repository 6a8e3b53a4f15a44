"""A head in which the depth of a class is a place: general ones near the origin, specific ones towards the rim."""

import math
from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn

from configs.errors import ConfigError, DataError, FieldError, did_you_mean
from configs.schema.checks import above
from lightning_modules.geometry import PoincareBall, reach

_SCALES = ("log_image_scale", "log_text_scale", "log_logit_scale")


class HyperbolicHead(nn.Module):
    """-scale * hyperbolic distance of image and class text (Dong et al. 2026, arXiv 2604.18867, section 3); see `Head`.

    Embeddings are multiplied by a learnt scale per modality, as of MERU (Desai et al. 2023), and enter the ball by the
    exp map at the origin. Without the scales there would be no depth: unit vectors all land at one radius, and CLIP's
    own, of length 10 and more, all at the rim. Scales are kept as logarithms, 0-dim parameters; the curvature is fixed.

    Raises:
        FieldError: a curvature that is not above 0.
    """

    def __init__(self, curvature: float, log_image_scale: float, log_text_scale: float, log_logit_scale: float) -> None:
        super().__init__()
        self.ball = PoincareBall(curvature)
        self.log_image_scale = nn.Parameter(torch.tensor(float(log_image_scale)))
        self.log_text_scale = nn.Parameter(torch.tensor(float(log_text_scale)))
        self.log_logit_scale = nn.Parameter(torch.tensor(float(log_logit_scale)))

    @classmethod
    def fit(
        cls,
        image_embeddings: Tensor,
        prompts: Tensor,
        *,
        curvature: float,
        image_radius: float,
        text_radius: float,
        logit_scale: float,
    ) -> Self:
        """A head whose scales put images and texts at given mean norms in the ball, to start training from.

        Args:
            image_embeddings: (N, D), a sample.
            prompts: (M, T, D), embeddings of T prompts of each of M classes.
            image_radius, text_radius: mean norms, as fractions of the ball's radius.
            logit_scale: factor on distances, > 0; distances to the origin are 2 artanh(fraction) / sqrt r.

        Raises:
            FieldError: a setting out of range.
            DataError: an embedding that is 0 or not finite.
        """
        ball = PoincareBall(curvature)
        above(0, logit_scale=logit_scale)
        _within_reach(image_radius=image_radius, text_radius=text_radius)
        image_scale = _fit_scale(ball, ball.norm(image_embeddings), image_radius)
        text_scale = _fit_scale(ball, ball.norm(_mean_prompt(prompts)), text_radius)
        return cls(curvature, math.log(image_scale), math.log(text_scale), math.log(logit_scale))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The head that `as_dict` describes.

        Raises:
            ConfigError: a key that is unknown or missing, or a value that is no finite number.
            FieldError: a curvature that is not above 0.
        """
        names = ("curvature", *_SCALES)
        for name in values:
            if name not in names:
                raise ConfigError(f"the hyperbolic head has no '{name}'; {did_you_mean(name, names)}")
        for name in names:
            value: Any = values.get(name)
            if type(value) not in (int, float) or not math.isfinite(value):
                raise ConfigError(
                    f"the hyperbolic head needs a finite number as '{name}', got {value!r}; export it again"
                )
        return cls(**values)

    def as_dict(self) -> dict[str, float]:
        """Curvature and the logarithms of the scales, as JSON takes them, to the last bit."""
        return {"curvature": self.ball.curvature} | {name: self.get_parameter(name).item() for name in _SCALES}

    @property
    def scale(self) -> Tensor:
        """Factor of distances in logits, 0-dim."""
        return self.log_logit_scale.exp()

    def images(self, embeddings: Tensor) -> Tensor:
        """exp0(scale * embedding)."""
        return self.ball.exp0(self.log_image_scale.exp() * embeddings.float())

    def texts(self, prompts: Tensor) -> Tensor:
        """exp0(scale * mean of the prompts' embeddings)."""
        return self.ball.exp0(self.log_text_scale.exp() * _mean_prompt(prompts))

    def similarities(self, image_points: Tensor, text_points: Tensor) -> Tensor:
        """Hyperbolic distances, with a minus."""
        return -self.ball.distances(image_points, text_points)

    def logits(self, image_points: Tensor, text_points: Tensor) -> Tensor:
        """Hyperbolic distances, with a minus, scaled."""
        return self.scale * self.similarities(image_points, text_points)

    def depths(self, points: Tensor) -> Tensor:
        """Euclidean norms (...) of points (..., D), the paper's eta: from 0 to 1 / sqrt r. The distance to the origin
        grows with it and would order points alike."""
        return self.ball.norm(points)


def _mean_prompt(prompts: Tensor) -> Tensor:
    return prompts.float().mean(dim=1)


def _within_reach(**radii: float) -> None:
    """Raises FieldError where a mean norm can't be had, in float32."""
    limit = reach(torch.float32)
    for name, radius in radii.items():
        if not 0 < radius < limit:
            raise FieldError(name, f"must be above 0 and below {limit:.3f} of the ball's radius, got {radius}")


def _fit_scale(ball: PoincareBall, norms: Tensor, radius: float) -> float:
    """The scale at which vectors of these norms (N,) get into the ball with a mean norm of `radius` of the ball's."""
    shortest, longest = norms.min().item(), norms.max().item()
    if not 0 < shortest <= longest < math.inf:
        raise DataError(
            f"a hyperbolic head can't be fitted to embeddings with norms from {shortest} to {longest}; "
            "check the model, as they must all be finite and above 0"
        )
    vectors = norms.detach()[:, None]
    tangent = math.atanh(radius) * ball.radius
    low, high = math.log(tangent / longest), math.log(tangent / shortest)  # all too near the origin, all too far out
    for _ in range(40):
        middle = (low + high) / 2
        reached = ball.norm(ball.exp0(math.exp(middle) * vectors)).mean().item() / ball.radius
        low, high = (middle, high) if reached < radius else (low, middle)
    return math.exp((low + high) / 2)
