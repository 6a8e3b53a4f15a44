"""Prototypes, von Mises-Fisher constants and draws against brute force and closed forms of another kind."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import ive
from torch import Tensor

from configs.errors import DataError
from configs.schema.vaccination import (
    ConstrainedPrototypes,
    MixedPrototypes,
    TextPrototypes,
    VisualPrototypes,
)
from lightning_modules.open_world.draws import shots, spread
from lightning_modules.open_world.prototypes import ClassSums, build, constrained, mixed
from lightning_modules.open_world.vmf import concentration, log_normaliser


def units(count: int, dimension: int, seed: int = 0) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(count, dimension, generator=random, dtype=torch.float64), dim=1)


def angles(one: Tensor, two: Tensor) -> Tensor:
    return (one * two).sum(dim=1).clamp(-1, 1).arccos()


@settings(deadline=None, max_examples=50)
@given(st.floats(0.0, math.pi), st.integers(0, 100), st.integers(2, 9))
def test_the_constraint_is_met_and_binds_where_it_must(angle: float, seed: int, dimension: int) -> None:
    images, texts = units(6, dimension, seed), units(6, dimension, seed + 1000)
    found = constrained(images, texts, angle)
    theta = angles(images, texts)
    torch.testing.assert_close(angles(found, texts), theta.clamp_max(angle), atol=2e-7, rtol=0)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(6, dtype=torch.float64))
    # In the plane of the two, between them.
    torch.testing.assert_close(angles(found, images) + angles(found, texts), theta, atol=2e-7, rtol=0)


def test_no_other_direction_within_the_angle_fits_the_images_better() -> None:
    """Against 200,000 random directions in three dimensions, none of which may beat it and some of which come near."""
    images, texts, angle = units(1, 3, 3), units(1, 3, 4), 0.5
    assert angles(images, texts) > angle
    tried = units(200_000, 3, 5)
    allowed = tried[(tried @ texts[0]) >= math.cos(angle)]
    best = (allowed @ images[0]).max()
    found = (constrained(images, texts, angle) @ images[0]).squeeze()
    assert best <= found
    assert found - best < 1e-3


def test_the_angle_gives_the_alpha_of_each_class() -> None:
    """mu is (1 - alpha) v + alpha t with the alpha that the constraint is solved for."""
    images, texts, angle = units(5, 6), units(5, 6, 1), 0.7
    theta = angles(images, texts)
    alpha = torch.sin(theta - angle) / (math.sin(angle) + torch.sin(theta - angle))
    for row in range(5):
        expected = mixed(images[row : row + 1], texts[row : row + 1], float(alpha[row]))
        torch.testing.assert_close(constrained(images, texts, angle)[row : row + 1], expected)


def sums_of(embeddings: Tensor, labels: Tensor, classes: int) -> ClassSums:
    sums = ClassSums(classes, embeddings.shape[1])
    for part, part_labels in zip(embeddings.split(3), labels.split(3), strict=True):
        sums.add(part, part_labels)
    return sums


def test_kinds_of_prototypes() -> None:
    labels, texts = torch.arange(20) % 3, units(3, 5, 9) * 4
    embeddings = units(20, 5) + 2 * texts[labels] / 4
    sums = sums_of(embeddings * torch.arange(1, 21)[:, None], labels, 3)  # lengths don't matter
    names = ("ant", "bee", "cow")
    means = torch.stack([F.normalize(embeddings, dim=1)[labels == label].mean(dim=0) for label in range(3)])
    visual = build(VisualPrototypes(), sums, texts, names)
    text = build(TextPrototypes(), sums, texts, names)
    torch.testing.assert_close(visual.directions.double(), F.normalize(means, dim=1), atol=1e-6, rtol=0)
    torch.testing.assert_close(text.directions.double(), F.normalize(texts, dim=1), atol=1e-6, rtol=0)
    for alpha, same in ((0.0, visual), (1.0, text)):
        torch.testing.assert_close(build(MixedPrototypes(alpha=alpha), sums, texts, names).directions, same.directions)
    torch.testing.assert_close(
        build(ConstrainedPrototypes(angle=0.0), sums, texts, names).directions, text.directions, atol=1e-6, rtol=0
    )
    torch.testing.assert_close(
        build(ConstrainedPrototypes(angle=180.0), sums, texts, names).directions, visual.directions
    )
    # For its own mean direction, kappa is Banerjee's of the mean's length.
    torch.testing.assert_close(visual.kappa, concentration(means.norm(dim=1), 5))
    assert visual.kappa.min() <= visual.shared <= visual.kappa.max()


def test_a_class_without_images_is_named() -> None:
    sums = sums_of(units(4, 5), torch.tensor([0, 0, 2, 2]), 3)
    with pytest.raises(DataError, match="'bee'"):
        build(VisualPrototypes(), sums, units(3, 5), ("ant", "bee", "cow"))


def test_a_class_whose_images_cancel_out_is_named() -> None:
    vector = units(1, 5)
    sums = sums_of(torch.cat([vector, -vector]), torch.zeros(2, dtype=torch.int64), 1)
    with pytest.raises(DataError, match="'ant'"):
        build(VisualPrototypes(), sums, units(1, 5), ("ant",))


@pytest.mark.parametrize("dimension", [2, 3, 16, 256, 512, 4096])
def test_normaliser_equals_scipy_where_scipy_can_compute_it(dimension: int) -> None:
    kappa = torch.tensor([0.5, 3.0, 55.0, 100.0, 1500.0, 40_000.0], dtype=torch.float64)
    order = dimension / 2 - 1
    scaled = ive(order, kappa.numpy())
    usable = scaled > 1e-290
    assert usable.any()
    bessel = np.log(scaled[usable]) + kappa.numpy()[usable]
    expected = order * np.log(kappa.numpy()[usable]) - dimension / 2 * math.log(2 * math.pi) - bessel
    np.testing.assert_allclose(log_normaliser(kappa, dimension).numpy()[usable], expected, rtol=1e-10, atol=1e-7)
    assert log_normaliser(kappa, dimension).isfinite().all()


def test_normaliser_of_three_dimensions_is_elementary() -> None:
    """C_3 = kappa / (4 pi sinh kappa), to the last digits, also near 0, where it is the uniform density's."""
    kappa = torch.tensor([1e-4, 0.1, 1.0, 20.0], dtype=torch.float64)
    expected = (kappa / (4 * math.pi * kappa.sinh())).log()
    torch.testing.assert_close(log_normaliser(kappa, 3), expected, rtol=1e-10, atol=1e-10)


def test_concentration_is_recovered_from_samples() -> None:
    """In three dimensions cos has a closed quantile function; Banerjee's estimate is a few per cent off."""
    kappa, quantiles = 30.0, (torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000
    cosines = 1 + (quantiles + (1 - quantiles) * math.exp(-2 * kappa)).log() / kappa
    assert float(concentration(cosines.mean(), 3)) == pytest.approx(kappa, rel=0.05)


def test_shots_are_of_each_class_and_the_seeds_own() -> None:
    labels = torch.tensor([0, 1, 0, 2, 0, 1, 0, 0])
    chosen = shots(labels, 2, seed=1)
    assert labels[chosen].bincount().tolist() == [2, 2, 1]
    assert chosen.tolist() == sorted(chosen.tolist())
    assert torch.equal(chosen, shots(labels, 2, seed=1))
    assert len({tuple(shots(labels, 2, seed=seed).tolist()) for seed in range(20)}) > 1


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(-1, 4), min_size=1, max_size=60), st.floats(0, 0.99), st.integers(0, 5))
def test_a_share_is_spread_over_groups(groups: list[int], share: float, seed: int) -> None:
    owners = torch.tensor(groups)
    chosen = spread(owners, share, seed)
    assert abs(int(chosen.sum()) - share * len(groups)) <= 0.5 + 1e-9
    for group in set(groups):
        members = owners == group
        assert abs(int(chosen[members].sum()) - share * int(members.sum())) <= 1 + 1e-9
