"""A vaccinated model's view of an embedding: which class it is nearest to, and whether it is of any class at all."""

import copy
import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from configs.errors import DataError
from lightning_modules.open_world.adapter import Adapter
from lightning_modules.open_world.push import nearest
from lightning_modules.open_world.vmf import log_normaliser
from lightning_modules.open_world.weibull import Tails, fit_tails, log_tail

WEIGHTS, SETTINGS = "immunity.safetensors", "immunity.json"
Danger = Literal["own", "global"]
Recalibration = Literal["threshold", "weibull"]


class Immunity(nn.Module):
    """The adapter, prototypes and antibodies, and the score S_DIS = s+ - lambda s- of an image: s+ is its cosine with
    the nearest prototype, s- with the most dangerous antibody. Higher = more in-distribution.

    Shapes: B images, K classes, N antibodies, D dimensions. Embeddings come as the backbone gives them. All geometry
    here is of cosines, also where the model has a hyperbolic head: points are normalised embeddings, of images and of
    texts. Scores are differentiable in the embeddings, and each sample's is its own.

    basis       (D, D), applied to unit embeddings before the adapter; see `Coordinates`.
    prototypes  (K, D), unit length.
    kappa       (K,), concentrations: the factor of a class's cosine in its logit.
    antibodies  (N, D), unit length.
    owners      int64 (N,): an antibody's class, or -1.
    captions    N texts, what the antibodies say.
    lambda_inf  weight of s-.
    danger      s- over all antibodies, or those of the predicted class and of none; all where it has no such.
    temperature of the posterior, see `fit_temperature`; 1: not calibrated.
    """

    basis: Tensor
    prototypes: Tensor
    kappa: Tensor
    offset: Tensor
    antibodies: Tensor
    owners: Tensor

    def __init__(
        self,
        adapter: Adapter,
        prototypes: Tensor,
        kappa: Tensor,
        antibodies: Tensor,
        owners: Tensor,
        *,
        class_names: Sequence[str],
        captions: Sequence[str] | None = None,
        basis: Tensor | None = None,
        lambda_inf: float = 1.0,
        danger: Danger = "global",
        recalibration: Recalibration = "threshold",
        temperature: float = 1.0,
    ) -> None:
        super().__init__()
        self.adapter = adapter
        self.class_names = tuple(class_names)
        self.captions = ("",) * len(owners) if captions is None else tuple(captions)
        self.lambda_inf, self.danger, self.recalibration = lambda_inf, danger, recalibration
        self.temperature = temperature
        normaliser = log_normaliser(kappa, prototypes.shape[1])
        self.register_buffer("basis", torch.eye(adapter.dimension) if basis is None else basis.float())
        self.register_buffer("prototypes", prototypes.float())
        self.register_buffer("kappa", kappa.float())
        # log C_D, but for what all classes have in common; exactly 0 where kappa is shared.
        self.register_buffer("offset", (normaliser - normaliser.max()).float())
        self.register_buffer("antibodies", antibodies.float())
        self.register_buffer("owners", owners.long())
        self._set(Tails.unfitted(len(prototypes)))

    @property
    def tails(self) -> Tails:
        """Of each class's scores; see `calibrate`."""
        return Tails(*(self.get_buffer(f"tail_{name}") for name in Tails._fields))

    @property
    def threshold(self) -> Tensor:
        """(K,): the lowest score that is accepted, by the predicted class."""
        return self.tails.threshold

    def adapt(self, embeddings: Tensor) -> Tensor:
        """z', unit vectors float32 (B, D), of embeddings (B, D)."""
        with torch.autocast(embeddings.device.type, enabled=False):
            adapted: Tensor = self.adapter(F.normalize(embeddings.float(), dim=-1) @ self.basis)
        return adapted

    def similarities(self, points: Tensor) -> Tensor:
        """Cosines (B, K) of adapted points and prototypes."""
        with torch.autocast(points.device.type, enabled=False):
            return points.float() @ self.prototypes.T

    def logits(self, points: Tensor) -> Tensor:
        """log C_D(kappa_k) + kappa_k cos, (B, K), up to a constant of all classes: their softmax is the posterior of
        the classes under von Mises-Fisher distributions."""
        return self.kappa * self.similarities(points) + self.offset

    def posterior(self, points: Tensor) -> Tensor:
        """(B, K), of the logits divided by the temperature, which leaves the order of the classes as it is."""
        return (self.logits(points) / self.temperature).softmax(dim=1)

    def most_dangerous(self, points: Tensor) -> Tensor:
        """Which antibody s- is of, int64 (B,), for adapted points (B, D); -1 without antibodies."""
        with torch.autocast(points.device.type, enabled=False):
            if self.danger == "global":
                return nearest(points, self.antibodies, self.owners)
            found = nearest(points, self.antibodies, self.owners, self.logits(points).argmax(dim=1))
            return torch.where(found < 0, nearest(points, self.antibodies, self.owners), found)

    def classify(self, embeddings: Tensor) -> Tensor:
        """Classes of the largest posterior, int64 (B,)."""
        return self.logits(self.adapt(embeddings)).argmax(dim=1)

    def terms(self, embeddings: Tensor) -> tuple[Tensor, Tensor]:
        """s+ and s-, (B,) each; s- is 0 without antibodies."""
        points = self.adapt(embeddings)
        known = self.similarities(points).amax(dim=1)
        if not len(self.antibodies):
            return known, torch.zeros_like(known)
        with torch.autocast(points.device.type, enabled=False):
            # The search has no gradient; that of the maximum is the found antibody's.
            return known, (points * self.antibodies[self.most_dangerous(points)]).sum(dim=1)

    def score(self, embeddings: Tensor) -> Tensor:
        """S_DIS, (B,)."""
        known, danger = self.terms(embeddings)
        return known - self.lambda_inf * danger

    def recalibrated(self, embeddings: Tensor) -> Tensor:
        """S_DIS by what is usual for the predicted class, (B,): less its threshold, or the log probability of its tail.

        The paper's figures without EVT can only follow where thresholds change the score, so that one of the two is
        probably what it has (inferred).
        """
        score, classes, tails = self.score(embeddings), self.classify(embeddings), self.tails
        if self.recalibration == "threshold":
            return score - tails.threshold[classes]
        return log_tail(score, tails.start[classes], tails.scale[classes], tails.shape[classes])

    @torch.no_grad()
    def accept(self, embeddings: Tensor) -> Tensor:
        """bool (B,): whether S_DIS reaches the threshold of the predicted class."""
        return self.score(embeddings) >= self.threshold[self.classify(embeddings)]

    @torch.no_grad()
    def calibrate(self, embeddings: Tensor, *, tail: float, rejected: float, tail_samples: int) -> None:
        """Fits thresholds to in-distribution embeddings (M, D) that nothing was trained on; see `fit_tails`.

        Raises:
            DataError: there is no tail to fit.
        """
        scores, classes = self.score(embeddings), self.classify(embeddings)
        found = fit_tails(
            scores, classes, len(self.prototypes), tail=tail, rejected=rejected, tail_samples=tail_samples
        )
        self._set(found)

    def weakened(self, strength: float) -> "Immunity":
        """A copy whose adapter adds `strength` times as much to an embedding: 0 is the identity, 1 the adapter as it is
        (CLIP-Adapter's residual ratio, Gao et al. 2021, here after training)."""
        found = copy.deepcopy(self)
        with torch.no_grad():
            found.adapter.outward.weight.mul_(strength)
            found.adapter.outward.bias.mul_(strength)
        return found

    def without(self, captions: Collection[str]) -> "Immunity":
        """A copy without the antibodies that say one of these; what it learnt from them stays learnt."""
        found = copy.deepcopy(self)
        kept = torch.tensor([caption not in captions for caption in self.captions], device=self.owners.device)
        found.antibodies, found.owners = self.antibodies[kept], self.owners[kept]
        found.captions = tuple(caption for caption in self.captions if caption not in captions)
        return found

    def require(self, class_names: Sequence[str], dimension: int) -> None:
        """Raises DataError where this belongs to other classes or to embeddings of another dimension."""
        if self.class_names != tuple(class_names):
            raise DataError(
                f"the immunity is of {len(self.class_names)} classes ({', '.join(self.class_names[:3])}, ...) and the "
                f"data has {len(class_names)} ({', '.join(class_names[:3])}, ...); vaccinate the model for this data"
            )
        if self.adapter.dimension != dimension:
            raise DataError(
                f"the immunity is of embeddings with {self.adapter.dimension} dimensions and the model's have "
                f"{dimension}; vaccinate this model"
            )

    def save(self, folder: Path) -> None:
        """Writes immunity.safetensors and immunity.json into a folder, which is made where it isn't there."""
        folder.mkdir(parents=True, exist_ok=True)
        settings = {
            "class_names": self.class_names,
            "dimension": self.adapter.dimension,
            "hidden": self.adapter.inward.out_features,
            "captions": self.captions,
            "lambda_inf": self.lambda_inf,
            "danger": self.danger,
            "recalibration": self.recalibration,
            "temperature": self.temperature,
        }
        weights = {name: value.detach().cpu().contiguous().clone() for name, value in self.state_dict().items()}
        save_file(weights, folder / f".{WEIGHTS}")
        (folder / f".{SETTINGS}").write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", "utf-8")
        for name in (WEIGHTS, SETTINGS):
            (folder / f".{name}").replace(folder / name)

    @classmethod
    def load(cls, folder: Path) -> "Immunity":
        """What `save` wrote, on the CPU.

        Raises:
            DataError: a file is missing, damaged, or of another model than its neighbour.
        """
        try:
            settings = json.loads((folder / SETTINGS).read_text("utf-8"))
            weights = load_file(folder / WEIGHTS)
            immunity = _blank(cls, settings)
            immunity.load_state_dict(weights)
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
            reason = str(error).splitlines()[0]
            raise DataError(f"{folder} holds no immunity that can be read ({reason}); vaccinate again") from error
        return immunity.eval()

    def _set(self, tails: Tails) -> None:
        for name, values in tails._asdict().items():
            self.register_buffer(f"tail_{name}", values.to(self.prototypes.device, copy=True))


def _blank(kind: type[Immunity], settings: dict[str, Any]) -> Immunity:
    """Of the shapes that the settings give, to load weights into."""
    classes, dimension, count = len(settings["class_names"]), settings["dimension"], len(settings["captions"])
    return kind(
        Adapter(dimension, settings["hidden"]),
        torch.zeros(classes, dimension),
        torch.ones(classes),
        torch.zeros(count, dimension),
        torch.zeros(count, dtype=torch.int64),
        **{name: settings[name] for name in ("class_names", "captions", "lambda_inf", "danger", "recalibration")},
        temperature=float(settings.get("temperature", 1.0)),  # files from before it was fitted have none
    )
