"""Heads against their formulas, what their gradients reach, and what they refuse."""

import json
import math
from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from configs.errors import ConfigError, DataError, FieldError
from lightning_modules.geometry import PoincareBall
from lightning_modules.heads import CosineHead, Entry, Head, HyperbolicHead

SETTINGS = {"curvature": 1.0, "image_radius": 0.6, "text_radius": 0.4, "power": 1.0, "logit_scale": 10.0}


def embeddings(seed: int = 0, count: int = 40, mean: float = 43.0, std: float = 16.0) -> Tensor:
    """Random directions (count, 16) with norms as a CLIP's have them."""
    generator = torch.Generator().manual_seed(seed)
    norms = (mean + std * torch.randn(count, 1, generator=generator)).clamp_min(1)
    return norms * F.normalize(torch.randn(count, 16, generator=generator), dim=1)


def prompts(seed: int = 1, classes: int = 7) -> Tensor:
    """(classes, 3, 16): three prompts per class, around one direction."""
    generator = torch.Generator().manual_seed(seed)
    return embeddings(seed, classes, 56, 2.6)[:, None] + torch.randn(classes, 3, 16, generator=generator)


def fitted(**changes: float) -> HyperbolicHead:
    return HyperbolicHead.fit(embeddings(), prompts(), **(SETTINGS | changes))


def classify(head: Head, images: Tensor, texts: Tensor) -> Tensor:
    return head.logits(head.images(images), head.texts(texts))


def test_cosine_head() -> None:
    images, texts = embeddings(), prompts()
    found = classify(CosineHead(20.0), images, texts)
    for row, image in enumerate(images):
        for column, text in enumerate(texts):
            mean = torch.stack([prompt / prompt.norm() for prompt in text]).mean(0)
            assert found[row, column].item() == pytest.approx(
                20 * F.cosine_similarity(image, mean, dim=0).item(), abs=1e-4
            )


def test_cosine_head_does_not_train_its_scale() -> None:
    scale = torch.tensor(20.0, requires_grad=True)
    images = embeddings().requires_grad_()
    logits = classify(CosineHead(scale), images, prompts())
    logits.sum().backward()
    assert scale.grad is None
    assert images.grad is not None
    assert_close(logits, classify(CosineHead(20.0), images, prompts()))


def test_hyperbolic_head() -> None:
    head = HyperbolicHead(0.5, Entry(math.log(0.7), 0.6, 43.0), Entry(math.log(0.4), 1.0, 56.0), math.log(3.0))
    images, texts, ball = embeddings(count=5), prompts(), PoincareBall(0.5)
    found = classify(head, images, texts)
    for row, image in enumerate(images):
        for column, text in enumerate(texts):
            prompt = text.mean(0)
            ends = (
                ball.exp0(0.7 * (image.norm() / 43) ** 0.6 * image / image.norm()),
                ball.exp0(0.4 * (prompt.norm() / 56) * prompt / prompt.norm()),
            )
            assert found[row, column].item() == pytest.approx(-3 * ball.distance(*ends).item(), rel=1e-5)
    assert_close(head.depths(head.images(images)), head.images(images).norm(dim=1))


@settings(max_examples=10, deadline=None)
@given(
    curvature=st.sampled_from([0.05, 1.0, 3.0]),
    image_radius=st.floats(0.02, 0.97),
    text_radius=st.floats(0.02, 0.97),
    power=st.sampled_from([0.0, 0.3, 1.0]),
)
def test_fit_places_both_modalities(curvature: float, image_radius: float, text_radius: float, power: float) -> None:
    head = fitted(curvature=curvature, image_radius=image_radius, text_radius=text_radius, power=power)
    for points, radius in ((head.images(embeddings()), image_radius), (head.texts(prompts()), text_radius)):
        assert head.depths(points).mean().item() * math.sqrt(curvature) == pytest.approx(radius, rel=1e-4)
    assert head.log_logit_scale.exp().item() == pytest.approx(10.0)


def test_power_one_is_one_scale_for_a_modality_and_power_zero_one_radius() -> None:
    images = embeddings()
    head, ball = fitted(power=1.0), fitted().ball
    scale = head.image.log_scale.exp() / head.image.length
    assert_close(head.images(images), ball.exp0(scale * images))
    depths = fitted(power=0.0).depths(fitted(power=0.0).images(images))
    assert_close(depths, depths[:1].expand_as(depths))


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10**6), radii=st.tuples(st.floats(0.1, 0.9), st.floats(0.1, 0.9)))
def test_power_zero_ranks_as_cosines_do(seed: int, radii: tuple[float, float]) -> None:
    """Whatever the lengths of images and texts."""
    images, texts = embeddings(seed), embeddings(seed + 1, 7)[:, None]
    cosines = classify(CosineHead(1.0), images, texts)
    distances = classify(fitted(power=0.0, image_radius=radii[0], text_radius=radii[1]), images, texts)
    assert (distances.gather(1, cosines.argsort(dim=1)).diff(dim=1) > -1e-4).all()


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10**6), curvature=st.sampled_from([0.1, 1.0]))
def test_ranks_as_cosines_do_where_all_texts_are_equally_deep(seed: int, curvature: float) -> None:
    """Whatever the norms of the images: on a sphere around the origin, distance falls with the cosine."""
    images = embeddings(seed)
    texts = 56 * F.normalize(embeddings(seed + 1, 7), dim=1)[:, None]
    cosines = classify(CosineHead(1.0), images, texts)
    distances = classify(fitted(curvature=curvature), images, texts)
    in_order = distances.gather(1, cosines.argsort(dim=1))
    assert (in_order.diff(dim=1) > -1e-4).all()


@pytest.mark.parametrize(
    "head", [CosineHead(20.0), CosineHead(torch.tensor(20.0)), fitted()], ids=["float", "0-dim", "ball"]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_float32_under_autocast(head: Head, dtype: torch.dtype) -> None:
    images, texts = embeddings().to(dtype), prompts().to(dtype)
    plain = classify(head, images, texts)
    with torch.autocast("cpu", torch.bfloat16):
        points, anchors = head.images(images), head.texts(texts)
        surrounded = head.logits(points, anchors)
    assert points.dtype == anchors.dtype == surrounded.dtype == torch.float32
    assert_close(surrounded, plain, rtol=1e-6, atol=1e-5)


def test_gradients_reach_scales_and_embeddings() -> None:
    head, images, texts = fitted(), embeddings().requires_grad_(), prompts().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        loss = F.cross_entropy(classify(head, images, texts), torch.arange(40) % 7)
    loss.backward()
    reached = {name: parameter.grad for name, parameter in head.named_parameters()}
    assert set(reached) == {"image.log_scale", "image.power", "text.log_scale", "text.power", "log_logit_scale"}
    for gradient in (*reached.values(), images.grad, texts.grad):
        assert gradient is not None
        assert gradient.isfinite().all()
        assert gradient.abs().sum() > 0


def test_a_step_along_the_gradient_of_the_scales_lowers_the_loss() -> None:
    head, images, labels = fitted(), embeddings(), torch.arange(40) % 7
    optimiser = torch.optim.SGD(head.parameters(), lr=1e-3)
    losses = []
    for _ in range(20):
        losses.append(F.cross_entropy(classify(head, images, prompts()), labels))
        optimiser.zero_grad()
        losses[-1].backward()
        optimiser.step()
    assert all(later < earlier for earlier, later in pairwise(losses))


def test_through_json_and_back() -> None:
    head = fitted(curvature=0.3)
    again = HyperbolicHead.from_dict(json.loads(json.dumps(head.as_dict())))
    assert again.as_dict() == head.as_dict()
    assert again.ball == head.ball
    assert torch.equal(classify(again, embeddings(), prompts()), classify(head, embeddings(), prompts()))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"curvature": 0.0}, "curvature must be > 0, got 0.0"),
        ({"image_radius": 1.0}, r"image_radius must be above 0 and below 0.999 of the ball's radius, got 1.0"),
        ({"image_radius": 0.0}, "image_radius must be above 0"),
        ({"text_radius": math.nan}, "text_radius must be above 0"),
        ({"logit_scale": -1.0}, "logit_scale must be > 0"),
    ],
)
def test_fit_refuses(changes: dict[str, float], message: str) -> None:
    with pytest.raises(FieldError, match=message):
        fitted(**changes)


@pytest.mark.parametrize("value", [0.0, math.nan, math.inf])
def test_fit_refuses_embeddings_without_a_length(value: float) -> None:
    broken = embeddings()
    broken[3] = value
    with pytest.raises(DataError, match="can't be fitted to embeddings with norms from"):
        HyperbolicHead.fit(broken, prompts(), **SETTINGS)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"log_logit_scal": 1.0}, "head has no 'log_logit_scal'; did you mean 'log_logit_scale'"),
        ({"image": {"log_scale": 1.0, "power": 0.0}}, "image needs a finite number as 'length', got None"),
        ({"text": 3.0}, "text needs a finite number as 'log_scale', got None"),
        ({"image": {"log_scale": 1.0, "power": 0.0, "length": 0.0}}, "length must be > 0, got 0.0"),
        ({"log_logit_scale": math.nan}, "needs a finite number as 'log_logit_scale', got nan"),
        ({"curvature": "1"}, "needs a finite number as 'curvature', got '1'"),
        ({"curvature": -1.0}, "curvature must be > 0, got -1.0"),
    ],
)
def test_from_dict_refuses(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        HyperbolicHead.from_dict(fitted().as_dict() | changes)


def test_from_dict_needs_every_key() -> None:
    values = fitted().as_dict()
    del values["text"]
    with pytest.raises(ConfigError, match="text needs a finite number as 'log_scale', got None"):
        HyperbolicHead.from_dict(values)
