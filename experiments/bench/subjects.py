"""Networks under attack: as they are, and hardened until about half of the samples stand. Made in the bench itself."""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from configs.schema.model import ModelConfig
from datamodules.sources.openmoji.concepts import Concept, concepts
from datamodules.sources.openmoji.rendering import render
from experiments.costs.untrained import untrained
from lightning_modules.attacks import APGD, LOSSES, PGD, AutoAttack, misclassified, noise
from lightning_modules.backbones import Backbone, class_features, freeze, load_backbone

EPS_255 = 8.0  # the field's usual radius, and the least at which undefended networks are attacked
SAMPLES, BATCHES = 40, 4
CLASSES = 10  # of the networks that are trained here from scratch
STRENGTH = (0.0, 0.3)  # of their renderings: easy ones, so that seconds of training are enough
TEMPLATES = ("a drawing of a {c}.",)
TRAINING, TEST = 1001, 1002  # streams of renderings that no packed data set has
BISECTIONS = 5


@dataclass(frozen=True)
class Subject:
    """A network in eval mode, and pictures that it gets right. N samples, K classes.

    module  float32 (B, 3, H, W) in [0, 1] -> logits (B, K). Weights require gradients, as in any model that was loaded.
    seeds   int64 (N,): of the attacks' random draws.
    slots   largest batch.
    """

    name: str
    module: nn.Module
    pixels: Tensor  # float32 (N, 3, H, W)
    labels: Tensor  # int64 (N,)
    seeds: Tensor
    eps_255: float
    slots: int

    @property
    def device(self) -> torch.device:
        """Where all of it is."""
        return self.pixels.device

    @property
    def frozen(self) -> nn.Module:
        """A copy whose weights need no gradient, so that less is kept for the backward pass."""
        return freeze(copy.deepcopy(self.module))


class Pictures(NamedTuple):
    """Renderings (N, 3, H, W) in [0, 1], and their labels (N,)."""

    pixels: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Fit:
    """How a network is trained: AdamW, one cycle; under attack by one step of PGD where there is a radius."""

    steps: int
    rate: float
    eps_255: float = 0.0
    batch: int = 64


class Classifier(nn.Module):
    """A CLIP that compares pictures with class texts, which are encoded once."""

    features: Tensor

    def __init__(self, backbone: Backbone, names: Sequence[str]) -> None:
        super().__init__()
        self.backbone = backbone
        self.register_buffer("features", class_features(backbone, names, TEMPLATES))

    def forward(self, pixels: Tensor) -> Tensor:
        embeddings = self.backbone.embed_image(pixels)
        with torch.autocast(pixels.device.type, enabled=False):
            return self.backbone.logit_scale.detach() * F.normalize(embeddings, dim=-1) @ self.features.T


def subjects(device: torch.device) -> Iterator[tuple[Subject, Subject]]:
    """Pairs of an undefended network and the same one hardened: the mini CLIP, a small ViT; on a GPU also ViT-B/32."""
    everything = concepts("id")
    few = everything[:: len(everything) // CLASSES][:CLASSES]
    mini = Classifier(load_backbone(ModelConfig("mini")), [concept.name for concept in everything]).eval()
    train, test = pictures(everything, 5, TRAINING), pictures(everything, 1, TEST)
    yield _pair("mini CLIP", mini.to(device), train, test, Fit(30, 1e-3, EPS_255))
    train, test = pictures(few, 60, TRAINING, STRENGTH), pictures(few, 16, TEST, STRENGTH)
    small = _fitted(_small_vit().to(device), train, Fit(200, 2e-3))
    yield _pair("small ViT", small, train, test, Fit(100, 1e-3, 4.0))
    if device.type == "cuda":
        base: nn.Module = Classifier(untrained("ViT-B-32"), [concept.name for concept in few]).eval().to(device)
        train, test = (_enlarged(part, 224) for part in (train, pictures(few, 60, TEST, STRENGTH)))
        base = _fitted(base, train, Fit(300, 1e-4))
        yield _pair("ViT-B/32", base, train, test, Fit(100, 5e-5, 4.0), samples=256)


def pictures(
    members: Sequence[Concept], each: int, stream: int, strength: tuple[float, float] = (0.2, 1.0)
) -> Pictures:
    """So many renderings of each concept, labelled by its place."""
    found = [
        (render(concept.hexcode, np.random.default_rng([stream, number, *concept.code_points]), strength), label)
        for number in range(each)
        for label, concept in enumerate(members)
    ]
    pixels = torch.from_numpy(np.stack([picture for picture, _ in found])).permute(0, 3, 1, 2)
    return Pictures(pixels.contiguous().float() / 255, torch.tensor([label for _, label in found]))


def full_radius_255(module: nn.Module, right: Pictures) -> float:
    """The first of 8, 12, 16, ... at which APGD fells all samples, in 1/255."""
    radius = EPS_255
    while _fallen_share(module, right, radius) < 1.0:
        radius += 4
    return radius


def half_radius_255(module: nn.Module, right: Pictures) -> float:
    """The radius, in 1/255, at which APGD fells about half of the samples: in (0, 16), to half a step."""
    low, high = 0.0, 16.0
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (low, middle) if _fallen_share(module, right, middle) > 0.5 else (middle, high)
    return (low + high) / 2


def _fallen_share(module: nn.Module, right: Pictures, eps_255: float) -> float:
    attack = AutoAttack((APGD("linf", eps_255 / 255, steps=20),))
    found = attack(module, right.pixels, right.labels, LOSSES["ce"], _seeds(right), misclassified)
    return float(found.fallen.float().mean())


def _pair(
    name: str, module: nn.Module, train: Pictures, test: Pictures, hardening: Fit, samples: int = SAMPLES
) -> tuple[Subject, Subject]:
    """Attacked where nobody stands, and hardened and attacked where about half of the samples do."""
    hardened = _fitted(copy.deepcopy(module), train, hardening)
    plain, half = _right(module, test, samples), _right(hardened, test, samples)
    radii = full_radius_255(module, plain), half_radius_255(hardened, half)
    return (
        Subject(name, module, *plain, _seeds(plain), radii[0], samples // BATCHES),
        Subject(f"half-robust {name}", hardened, *half, _seeds(half), radii[1], samples // BATCHES),
    )


@torch.no_grad()
def _right(module: nn.Module, test: Pictures, samples: int) -> Pictures:
    """The first samples that a network gets right, on its device."""
    device = next(module.parameters()).device
    pixels, labels = test.pixels.to(device), test.labels.to(device)
    outputs = torch.cat([module(part) for part in torch.split(pixels, 64)])
    rows = (outputs.argmax(1) == labels).nonzero().squeeze(1)[:samples]
    return Pictures(pixels[rows], labels[rows])


def _seeds(found: Pictures) -> Tensor:
    return torch.arange(len(found.labels), device=found.labels.device)


def _small_vit() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return VisionTransformer(
            img_size=64, patch_size=16, embed_dim=128, depth=4, num_heads=4, num_classes=CLASSES
        ).eval()


def _fitted(module: nn.Module, train: Pictures, how: Fit) -> nn.Module:
    """Trains in place; the layers stay in eval mode, so that batch statistics remain those of the pretraining."""
    device = next(module.parameters()).device
    pixels, labels = train.pixels.to(device), train.labels.to(device)
    optimiser = torch.optim.AdamW(module.parameters(), how.rate, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, how.rate, total_steps=how.steps)
    for step in range(how.steps):
        rows = torch.randperm(len(labels), generator=torch.Generator().manual_seed(step))[: how.batch].to(device)
        batch, wanted = pixels[rows], labels[rows]
        if how.eps_255:
            attack = PGD("linf", how.eps_255 / 255, 1.25 * how.eps_255 / 255, steps=1)
            batch = attack(module, batch, wanted, LOSSES["ce"], noise.derive(step, rows)).pixels
        optimiser.zero_grad()
        torch.autograd.backward(F.cross_entropy(module(batch), wanted))
        optimiser.step()
        schedule.step()
    optimiser.zero_grad()
    return module


def _enlarged(found: Pictures, size: int) -> Pictures:
    pixels = F.interpolate(found.pixels, (size, size), mode="bicubic", antialias=True).clamp_(0.0, 1.0)
    return Pictures(pixels, found.labels)
