"""Whitened coordinates against covariances written out."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_modules.open_world.coordinates import SHRINKAGE, Coordinates, coordinates
from lightning_modules.open_world.prototypes import ClassSums

DIMENSION, CLASSES = 6, 4


def images(count: int = 400) -> tuple[Tensor, Tensor]:
    """Unit vectors that vary much more along the first axes than along the last."""
    random = torch.Generator().manual_seed(1)
    labels = torch.arange(count) % CLASSES
    centres = torch.randn(CLASSES, DIMENSION, generator=random)
    spread = torch.randn(count, DIMENSION, generator=random) * torch.logspace(0, -2, DIMENSION)
    return F.normalize((centres[labels] + spread).double(), dim=1), labels


def texts() -> Tensor:
    return F.normalize(torch.randn(CLASSES, DIMENSION, generator=torch.Generator().manual_seed(2)), dim=1)


def fitted(power: float) -> Coordinates:
    points, labels = images()
    sums = ClassSums(CLASSES, DIMENSION)
    for part in range(0, 400, 150):
        sums.add(points[part : part + 150], labels[part : part + 150])
    return coordinates(sums, points.double().T @ points.double(), texts(), power)


def within(points: Tensor, labels: Tensor) -> Tensor:
    """Covariance around the means of the classes, class by class."""
    parts = [points[labels == label] for label in range(CLASSES)]
    return sum(
        ((part - part.mean(0)).T @ (part - part.mean(0)) for part in parts),
        torch.zeros(DIMENSION, DIMENSION, dtype=torch.float64),
    )


def test_without_whitening_points_stay_where_they_are() -> None:
    points, _ = images(8)
    torch.testing.assert_close(fitted(0).images(3 * points), points.float())


def test_the_full_power_makes_classes_round() -> None:
    points, labels = images()
    white = within(points.double() @ fitted(1).basis.double(), labels)
    spread = torch.linalg.eigvalsh(within(points.double(), labels))
    assert spread[-1] / spread[0] > 100
    values = torch.linalg.eigvalsh(white)
    shrunk = spread / (spread + SHRINKAGE * spread.mean())  # what shrinkage leaves of each direction
    torch.testing.assert_close(values / values[-1], (shrunk / shrunk[-1]).sort().values, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("power", [0.5, 0.75])
def test_a_power_is_between_nothing_and_all(power: float) -> None:
    half, whole = (torch.linalg.eigvalsh(fitted(each).basis.double()).log() for each in (power, 1.0))
    torch.testing.assert_close(half - half.mean(), power * (whole - whole.mean()), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("power", [0.0, 0.75])
def test_class_texts_are_transplanted_onto_images_on_average(power: float) -> None:
    points, _ = images()
    found = fitted(power)
    moved = F.normalize(texts(), dim=1) + found.gap
    torch.testing.assert_close(moved.mean(0), points.mean(0).float(), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(found.transplanted(5 * texts()), found.images(moved))


def test_one_image_a_class_leaves_points_where_they_are() -> None:
    points, labels = images(CLASSES)
    sums = ClassSums(CLASSES, DIMENSION)
    sums.add(points, labels)
    found = coordinates(sums, points.double().T @ points.double(), texts(), 1.0)
    torch.testing.assert_close(found.images(points), points.float(), atol=1e-5, rtol=1e-5)  # one a class: no covariance
