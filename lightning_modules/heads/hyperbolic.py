"""A head in which the depth of a class is a place: general ones near the origin, specific ones towards the rim."""

import math
from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn

from configs.errors import ConfigError, DataError, FieldError, did_you_mean
from configs.schema.checks import above
from lightning_modules.geometry import PoincareBall, reach

_TINY = 1e-12  # a length below which an embedding is the zero vector


class Entry(nn.Module):
    """How the embeddings of one modality enter the ball: exp0(scale * (||x|| / length)^power * x / ||x||).

    Unit vectors would all land at one radius, and carry no depth; CLIP's own embeddings, of length 10 and more, all
    land at the rim. So a scale is learnt per modality, as in MERU (Desai et al. 2023), and here also how much of an
    embedding's length becomes depth: nothing at power 0, where comparing by distance orders classes as cosines do, and
    all of it at power 1, which is MERU's. A model that was trained with cosines has lengths that mean nothing yet.

    log_scale, power  0-dim parameters.
    length            a typical one, so that the power alone moves no mean.
    """

    length: Tensor

    def __init__(self, log_scale: float, power: float, length: float) -> None:
        super().__init__()
        above(0, length=length)
        self.log_scale = nn.Parameter(torch.tensor(float(log_scale)))
        self.power = nn.Parameter(torch.tensor(float(power)))
        self.register_buffer("length", torch.tensor(float(length)))

    def forward(self, ball: PoincareBall, embeddings: Tensor) -> Tensor:
        """Points float32 (N, D) of embeddings (N, D)."""
        with torch.autocast(embeddings.device.type, enabled=False):
            norms = torch.linalg.vector_norm(embeddings.float(), dim=-1, keepdim=True).clamp_min(_TINY)
            stretch = self.log_scale.exp() * (norms / self.length).pow(self.power)
            return ball.exp0(embeddings.float() / norms * stretch)

    def as_dict(self) -> dict[str, float]:
        return {name: getattr(self, name).item() for name in _ENTRY}


_ENTRY = ("log_scale", "power", "length")


class HyperbolicHead(nn.Module):
    """-scale * hyperbolic distance of image and class text (Dong et al. 2026, arXiv 2604.18867, section 3); see `Head`.

    The curvature is fixed; the entries of both modalities and the scale, kept as its logarithm, are trained.

    Raises:
        FieldError: a curvature that is not above 0.
    """

    def __init__(self, curvature: float, image: Entry, text: Entry, log_logit_scale: float) -> None:
        super().__init__()
        self.ball = PoincareBall(curvature)
        self.image, self.text = image, text
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
        power: float,
        logit_scale: float,
    ) -> Self:
        """A head whose entries put images and texts at given mean norms in the ball, to start training from.

        Args:
            image_embeddings: (N, D), a sample.
            prompts: (M, T, D), embeddings of T prompts of each of M classes.
            image_radius, text_radius: mean norms, as fractions of the ball's radius.
            power: of lengths, see `Entry`.
            logit_scale: factor on distances, > 0; distances to the origin are 2 artanh(fraction) / sqrt r.

        Raises:
            FieldError: a setting out of range.
            DataError: an embedding that is 0 or not finite.
        """
        ball = PoincareBall(curvature)
        above(0, logit_scale=logit_scale)
        _within_reach(image_radius=image_radius, text_radius=text_radius)
        image = _fit_entry(ball, ball.norm(image_embeddings), image_radius, power)
        text = _fit_entry(ball, ball.norm(_mean_prompt(prompts)), text_radius, power)
        return cls(curvature, image, text, math.log(logit_scale))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The head that `as_dict` describes.

        Raises:
            ConfigError: a key that is unknown or missing, or a value that is no finite number.
            FieldError: a curvature or a length that is not above 0.
        """
        entries = {modality: _numbers(values.get(modality), modality, _ENTRY) for modality in ("image", "text")}
        own = {name: value for name, value in values.items() if name not in entries}
        numbers = _numbers(own, "head", ("curvature", "log_logit_scale"))
        return cls(
            numbers["curvature"], Entry(**entries["image"]), Entry(**entries["text"]), numbers["log_logit_scale"]
        )

    def as_dict(self) -> dict[str, Any]:
        """Everything that makes the head, as JSON takes it, to the last bit."""
        own = {"curvature": self.ball.curvature, "log_logit_scale": self.log_logit_scale.item()}
        return {**own, "image": self.image.as_dict(), "text": self.text.as_dict()}

    @property
    def scale(self) -> Tensor:
        """Factor of distances in logits, 0-dim."""
        return self.log_logit_scale.exp()

    def images(self, embeddings: Tensor) -> Tensor:
        """See `Entry`."""
        points: Tensor = self.image(self.ball, embeddings)
        return points

    def texts(self, prompts: Tensor) -> Tensor:
        """The mean of a class's prompts, as its entry has it."""
        points: Tensor = self.text(self.ball, _mean_prompt(prompts))
        return points

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

    def shares(self, points: Tensor) -> Tensor:
        """Depths (...) as shares of the ball's radius: from 0, the root, to 1, the rim."""
        return self.depths(points) / self.ball.radius


def _mean_prompt(prompts: Tensor) -> Tensor:
    return prompts.float().mean(dim=1)


def _within_reach(**radii: float) -> None:
    """Raises FieldError where a mean norm can't be had, in float32."""
    limit = reach(torch.float32)
    for name, radius in radii.items():
        if not 0 < radius < limit:
            raise FieldError(name, f"must be above 0 and below {limit:.3f} of the ball's radius, got {radius}")


def _numbers(values: Any, what: str, names: tuple[str, ...]) -> dict[str, float]:
    """Exactly these keys, each a finite number."""
    given = values if isinstance(values, Mapping) else {}
    for name in given:
        if name not in names:
            raise ConfigError(f"the hyperbolic head's {what} has no '{name}'; {did_you_mean(name, names)}")
    for name in names:
        value: Any = given.get(name)
        if type(value) not in (int, float) or not math.isfinite(value):
            raise ConfigError(
                f"the hyperbolic head's {what} needs a finite number as '{name}', got {value!r}; export it again"
            )
    return dict(given)


def _fit_entry(ball: PoincareBall, norms: Tensor, radius: float, power: float) -> Entry:
    """The entry that gets vectors of these norms (N,) into the ball with a mean norm of `radius` of the ball's."""
    shortest, longest = norms.min().item(), norms.max().item()
    if not 0 < shortest <= longest < math.inf:
        raise DataError(
            f"a hyperbolic head can't be fitted to embeddings with norms from {shortest} to {longest}; "
            "check the model, as they must all be finite and above 0"
        )
    length = norms.mean().item()
    stretches = (norms.detach()[:, None] / length).pow(power)
    tangent = math.atanh(radius) * ball.radius
    bounds = [math.log(tangent / stretch) for stretch in (stretches.max().item(), stretches.min().item())]
    low, high = bounds  # all too near the origin, all too far out
    for _ in range(40):
        middle = (low + high) / 2
        reached = ball.norm(ball.exp0(math.exp(middle) * stretches)).mean().item() / ball.radius
        low, high = (middle, high) if reached < radius else (low, middle)
    return Entry((low + high) / 2, power, length)
