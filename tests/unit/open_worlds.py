"""Small open worlds: a head, classes, a bank with repeated texts, training images, and a batch."""

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from configs.schema import scores as schema
from lightning_modules.heads import CosineHead, Head, HyperbolicHead
from lightning_modules.open_world import Negatives, Reference

IMAGES, CLASSES, TEXTS, WIDTH, TRAINING = 9, 4, 23, 8, 60
GROUPS = 5  # does not divide TEXTS


@dataclass(frozen=True, eq=False)
class DoubleHead(CosineHead):
    """Cosines in float64, for finite differences."""

    def images(self, embeddings: Tensor) -> Tensor:
        return F.normalize(embeddings.double(), dim=-1)

    def similarities(self, image_points: Tensor, text_points: Tensor) -> Tensor:
        return image_points.double() @ text_points.double().T


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def hyperbolic() -> HyperbolicHead:
    settings = {"curvature": 1.0, "image_radius": 0.6, "text_radius": 0.6, "power": 0.3, "logit_scale": 20.0}
    return HyperbolicHead.fit(drawn(1, 50, WIDTH), drawn(2, 20, 1, WIDTH), **settings).requires_grad_(False)


def reference(head: Head, texts: int = TEXTS) -> Reference:
    """Two classes have the same text, and so have three negatives."""
    classes, negatives = drawn(3, CLASSES, 1, WIDTH), drawn(4, texts, 1, WIDTH)
    classes[1] = classes[0]
    negatives[3] = negatives[11] = negatives[0].clone()
    bank = Negatives(head.texts(negatives), torch.arange(texts) % (CLASSES + 1) - 1)
    labels = torch.arange(TRAINING) % CLASSES
    features = F.normalize(drawn(5, TRAINING, WIDTH) + classes[labels, 0], dim=1)
    return Reference(head, head.texts(classes), {"bank": bank}, features, labels)


def embeddings(count: int = IMAGES) -> Tensor:
    """Of various lengths."""
    return (0.5 + torch.arange(count)[:, None]) * drawn(6, count, WIDTH)


def settings(folder: Path, cosines: bool = True) -> dict[str, schema.Score]:
    """Every kind and form but those of a vaccinated model."""
    save_file({"no": drawn(7, CLASSES, WIDTH)}, folder / "no.safetensors")
    found: dict[str, schema.Score] = {
        "msp": schema.MSP(),
        "max_logit": schema.MaxLogit(),
        "energy": schema.Energy(temperature=2.0),
        "mcm": schema.MCM(),
        "neglabel": schema.NegLabel(bank="bank", groups=GROUPS, temperature=0.1),
        "neglabel_cold": schema.NegLabel(bank="bank", groups=3),
        **{f"eoe_{form}": schema.EOE(bank="bank", form=form) for form in ("penalty", "max", "msp", "energy")},
        "eoe_max_logit": schema.EOE(bank="bank", form="max_logit"),
        "clipn_ctw": schema.CLIPN(form="ctw", features=str(folder / "no.safetensors")),
        "clipn_atd": schema.CLIPN(form="atd", features=str(folder / "no.safetensors")),
        "knn": schema.KNN(k=7),
        "mahalanobis": schema.Mahalanobis(),
    }
    return found | ({"vim": schema.ViM(dimension=3)} if cosines else {})
