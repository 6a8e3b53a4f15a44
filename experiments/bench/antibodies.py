"""Open-world scores of 1,000 classes and 100,000 antibodies at 512 dimensions, against the matrix product alone.

The product and the memory are measured on 4,096 images, the rest on fewer: see the names of the rows.
"""

from dataclasses import dataclass
from functools import partial
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor

from configs.schema import scores as schema
from experiments.bench.memory import peak_bytes
from experiments.bench.negatives import BroadcastAdaNeg, grouped_softmax
from experiments.bench.rounds import interleaved, paired_ratio
from experiments.bench.table import Row
from experiments.bench.targets import row
from lightning_modules.heads import CosineHead
from lightning_modules.open_world import Negatives, Reference, Scores

CLASSES, TEXTS, IMAGES, WIDTH = 1000, 100_000, 4096, 512
SHOTS = 16  # training images a class
RIVAL_IMAGES, RIVAL_CHUNK = 32, 4
JOINT_IMAGES = 512
ROUNDS = 3
SCALE = 100.0
GIBIBYTE = 2**30
PRODUCT = (1024, 2000)  # the block in which the matrix product was fastest

FUSED: dict[str, schema.Score] = {
    "neglabel": schema.NegLabel(bank="bank"),
    "eoe": schema.EOE(bank="bank"),
    "max": schema.EOE(bank="bank", form="max_logit"),  # what S_DIS asks of its antibodies
}
EVERY: dict[str, schema.Score] = {
    **FUSED,
    "msp": schema.MSP(),
    "max_logit": schema.MaxLogit(),
    "energy": schema.Energy(),
    "mcm": schema.MCM(),
    **{f"eoe_{form}": schema.EOE(bank="bank", form=form) for form in ("max", "msp", "energy")},
    "ada_neg": schema.AdaNeg(bank="bank"),
    "knn": schema.KNN(),
    "mahalanobis": schema.Mahalanobis(),
    "vim": schema.ViM(),
}


@dataclass(frozen=True, eq=False)
class World:
    """A reference, and unit embeddings (B, D): half of them near a class, half near a negative."""

    reference: Reference
    images: Tensor

    @property
    def negatives(self) -> Tensor:
        return self.reference.banks["bank"].points


def measure() -> list[Row]:
    """Everything on this machine's accelerator, or else its CPU."""
    with torch.no_grad():
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        world = _world(device)
        return [*_fused(world), *_rivals(world), *_joint(world)]


def _fused(world: World) -> list[Row]:
    scores = Scores(FUSED, world.reference)
    loops = {"product": lambda: _product(world), "scores": lambda: scores(world.images)}
    seconds = interleaved(loops, ROUNDS)
    peak = peak_bytes(lambda: scores(world.images), world.images.device)
    flops = 2.0 * len(world.images) * (TEXTS + CLASSES) * WIDTH
    detail = {f"{name}_gflops_per_s": flops / 1e9 / median(taken) for name, taken in seconds.items()}
    return [
        row("4,096 images: matrix product / NegLabel, EOE, max", paired_ratio(*seconds.values()), **detail),
        row("4,096 images: extra memory / 1 GiB", peak / GIBIBYTE, peak_bytes=peak),
    ]


def _rivals(world: World) -> list[Row]:
    """The usual ways, whose scores must be the same."""
    images, reference = world.images[:RIVAL_IMAGES], world.reference
    neglabel, ada_neg = (Scores({name: EVERY[name]}, reference) for name in ("neglabel", "ada_neg"))
    broadcast = BroadcastAdaNeg(reference.classes, world.negatives, SCALE, schema.AdaNeg.groups, RIVAL_CHUNK)
    classes = reference.classes

    def straight() -> Tensor:
        return grouped_softmax(images @ classes.T, images @ world.negatives.T, 100, schema.NegLabel.temperature)

    def fresh() -> Tensor:
        ada_neg.reset()
        return ada_neg(images)["ada_neg"]

    _confirm_same(neglabel(images)["neglabel"], straight())
    _confirm_same(fresh(), broadcast(images))
    loops = {
        "neglabel": lambda: neglabel(images),
        "straight": straight,
        "ada_neg": fresh,
        "broadcast": lambda: broadcast(images),
    }
    seconds = interleaved(loops, ROUNDS)
    detail = {f"{name}_s": median(taken) for name, taken in seconds.items()}
    over = {
        "32 images: NegLabel, one softmax a group / here": ("straight", "neglabel"),
        "32 images: AdaNeg by broadcasting / here": ("broadcast", "ada_neg"),
    }
    return [row(name, paired_ratio(seconds[one], seconds[other]), **detail) for name, (one, other) in over.items()]


def _joint(world: World) -> list[Row]:
    """All scores at once, and the costliest of those that compare with many texts or images alone."""
    images = world.images[:JOINT_IMAGES]
    singles = ("ada_neg", "neglabel", "knn")
    passes = {name: Scores({name: EVERY[name]}, world.reference) for name in singles} | {
        "all": Scores(EVERY, world.reference)
    }

    def run(name: str) -> dict[str, Tensor]:
        passes[name].reset()
        return passes[name](images)

    together = run("all")
    for name in singles:
        _confirm_same(run(name)[name], together[name])
    seconds = interleaved({name: partial(run, name) for name in passes}, ROUNDS)
    detail = {f"{name}_s": median(taken) for name, taken in seconds.items()}
    costliest = max(singles, key=lambda name: detail[f"{name}_s"])
    ratio = paired_ratio(seconds["all"], seconds[costliest])
    return [row("512 images: all scores / the costliest", ratio, **detail)]


def _product(world: World) -> None:
    """The same similarities and nothing done with them, in blocks that suit the processor, written over and over."""
    rows, columns = PRODUCT
    texts = torch.cat([world.reference.classes, world.negatives])
    room = world.images.new_empty(rows, columns)
    for images in torch.split(world.images, rows):
        for part in torch.split(texts, columns):
            torch.mm(images, part.T, out=room[: len(images), : len(part)])


def _world(device: torch.device) -> World:
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> Tensor:
        return F.normalize(torch.randn(*shape, generator=generator), dim=-1)

    classes, negatives = drawn(CLASSES, WIDTH), drawn(TEXTS, WIDTH)
    labels = torch.arange(SHOTS * CLASSES) % CLASSES
    training = F.normalize(classes[labels] + drawn(len(labels), WIDTH), dim=1)
    places = torch.arange(IMAGES) * 7
    near = torch.where((places % 2 == 0)[:, None], classes[places % CLASSES], negatives[places % TEXTS])
    images = F.normalize(near + 2 * drawn(IMAGES, WIDTH), dim=1)
    owners = torch.arange(TEXTS) % CLASSES
    classes, negatives, training, images, labels, owners = (
        each.to(device) for each in (classes, negatives, training, images, labels, owners)
    )
    bank = {"bank": Negatives(negatives, owners)}
    return World(Reference(CosineHead(SCALE), classes, bank, training, labels), images)


def _confirm_same(own: Tensor, other: Tensor) -> None:
    """Raises AssertionError where two ways to a score differ by more than float32 rounds at a temperature of 0.01."""
    torch.testing.assert_close(own.double(), other.double(), rtol=1e-4, atol=1e-6)
