"""What a model is vaccinated on: its embeddings of images of known classes, their texts, and antibodies."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from configs.schema.vaccination import VaccinationConfig, VisualPrototypes
from lightning_modules import ranks
from lightning_modules.attacks import noise
from lightning_modules.features import Features
from lightning_modules.open_world import prototypes
from lightning_modules.open_world.adapter import Adapter
from lightning_modules.open_world.coordinates import Coordinates, coordinates
from lightning_modules.open_world.draws import shots, spread
from lightning_modules.open_world.immunity import Immunity
from lightning_modules.open_world.prototypes import ClassSums, Prototypes


@dataclass(frozen=True, eq=False)
class Antibodies:
    """N of them, on the host.

    directions  float32 (N, D), unit length.
    owners      int64 (N,): the class that each belongs to, or -1.
    captions    what each says.
    """

    directions: Tensor
    owners: Tensor
    captions: tuple[str, ...]

    def relabelled(self, numbers: Tensor) -> "Antibodies":
        """With classes by other numbers, int64 (K,), and without the antibodies of classes whose number is -1."""
        kept = (self.owners < 0) | (numbers[self.owners.clamp_min(0)] >= 0)
        owners = self.owners[kept]
        captions = tuple(caption for caption, keep in zip(self.captions, kept.tolist(), strict=True) if keep)
        return Antibodies(
            self.directions[kept], torch.where(owners < 0, owners, numbers[owners.clamp_min(0)]), captions
        )

    def __len__(self) -> int:
        return len(self.owners)


@dataclass(frozen=True, eq=False)
class Vaccination:
    """Embeddings, class texts and what follows from them; K classes, D dimensions. Geometry is of cosines, also where
    the model has a hyperbolic head. An image with label -1 is of none of the classes, and nothing is learnt from it.

    train, val  of whole splits; val is None where the data have no split to validate on.
    texts       unit vectors float32 (K, D): the mean of a class's prompts.
    scale       the model's own factor of cosines in logits.
    whitening   the power of the covariance within classes that embeddings are divided by.
    """

    settings: VaccinationConfig
    seed: int
    class_names: tuple[str, ...]
    train: Features
    val: Features | None
    texts: Tensor
    scale: float
    whitening: float = 0.0

    def without(self, held_out: Tensor) -> tuple["Vaccination", Tensor]:
        """The same for the classes where a mask (K,) is false, and their numbers, int64 (K,); -1 for the others."""
        numbers = torch.full((len(held_out),), -1)
        numbers[~held_out] = torch.arange(int((~held_out).sum()))
        names = tuple(name for name, out in zip(self.class_names, held_out.tolist(), strict=True) if not out)
        train, val = (each and Features(each.embeddings, numbers[each.labels]) for each in (self.train, self.val))
        assert train is not None
        return replace(self, class_names=names, train=train, val=val, texts=self.texts[~held_out]), numbers

    def whitened(self, power: float) -> "Vaccination":
        """The same in other coordinates; what they are made from is read once for all of them."""
        found = replace(self, whitening=power)
        vars(found).update({name: getattr(self, name) for name in ("places", "calibration", "_moments")})
        return found

    @property
    def folds(self) -> list[Tensor]:
        """Masks (K,) of classes to be held out, each class in one of them; none where too few would be left."""
        classes, count = len(self.class_names), round(1 / self.settings.held_out)
        if classes < count or classes - math.ceil(classes / count) < 2:
            return []
        order = noise.derive(self.seed, torch.arange(classes)).argsort().argsort()
        return [order % count == fold for fold in range(count)]

    @cached_property
    def places(self) -> Tensor:
        """int64: the training images that are learnt from."""
        places, wanted = ((self.train.labels >= 0) & ~self._aside).nonzero().flatten(), self.settings.shots
        return places if wanted is None else places[shots(self.train.labels[places], wanted, self.seed)]

    @cached_property
    def calibration(self) -> tuple[Tensor, Tensor]:
        """Embeddings and labels of the validation images, and of the training images that were left out for this."""
        places = [(self.train, self._aside.nonzero().flatten())]
        if self.val is not None:
            places.insert(0, (self.val, torch.arange(len(self.val))))
        rows = torch.cat([features.rows(chosen) for features, chosen in places])
        return rows, torch.cat([features.labels[chosen] for features, chosen in places])

    @cached_property
    def coordinates(self) -> Coordinates:
        """Where embeddings are compared."""
        return coordinates(*self._moments, self.texts, self.whitening)

    @cached_property
    def _moments(self) -> tuple[ClassSums, Tensor]:
        """Sums of unit embeddings z by class, and the sum of z z^T. On several ranks, each reads its share."""
        sums = ClassSums(len(self.class_names), self.train.dimension)
        moment = torch.zeros(self.train.dimension, self.train.dimension, dtype=torch.float64)
        for rows, labels in self._share():
            sums.add(rows, labels)
            points = F.normalize(rows.double(), dim=-1)
            moment += points.T @ points
        sums.reduce()
        return sums, ranks.summed(moment)

    @cached_property
    def prototypes(self) -> Prototypes:
        """As the configuration has them, or mean images where embeddings are whitened.

        Raises:
            DataError: a class has no training image, or no mean direction.
        """
        sums = ClassSums(len(self.class_names), self.train.dimension)
        for rows, labels in self._share():
            sums.add(self.coordinates.images(rows), labels)
        sums.reduce()
        kind = VisualPrototypes() if self.whitening else self.settings.prototypes
        return prototypes.build(kind, sums, self.texts, self.class_names)

    @cached_property
    def zero_shot(self) -> float:
        """Accuracy of the class texts on the calibration images of the classes."""
        rows, labels = self.calibration
        found = (rows.float() @ self.texts.T).argmax(dim=1)[labels >= 0]
        return float((found == labels[labels >= 0]).double().mean())

    @property
    def kappa(self) -> Tensor:
        """(K,), of the pull."""
        if self.settings.kappa == "class":
            return self.prototypes.kappa
        shared = self.scale if self.settings.kappa == "model" else self.prototypes.shared
        return torch.full_like(self.prototypes.kappa, shared)

    def immunity(self, antibodies: Antibodies) -> Immunity:
        """Before training: the adapter is the identity, and nothing is turned away."""
        place = self.coordinates.transplanted if self.settings.transplanted else self.coordinates.images
        return Immunity(
            Adapter(self.train.dimension, self.settings.hidden, self.seed),
            self.prototypes.directions,
            self.kappa,
            place(antibodies.directions),
            antibodies.owners,
            class_names=self.class_names,
            captions=antibodies.captions,
            basis=self.coordinates.basis,
            danger=self.settings.danger,
            recalibration=self.settings.recalibration,
        )

    def _share(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Embeddings and labels that this rank reads, block by block."""
        rank, world = ranks.position()
        return self.train.blocks(self.places[rank::world])

    @cached_property
    def _aside(self) -> Tensor:
        return spread(self.train.labels, self.settings.calibration_share, self.seed)
