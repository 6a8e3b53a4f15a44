"""The schedule at its boundaries, and who decays."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from configs.errors import ConfigError
from configs.schema.model import ModelConfig
from configs.schema.module import OptimConfig
from lightning_modules.backbones import load_backbone
from lightning_modules.backbones.freezing import freeze_text
from lightning_modules.optimisation import build_optimizer, lr_factor

SPANS = st.integers(2, 200).flatmap(lambda total: st.tuples(st.just(total), st.integers(0, total - 1)))


@given(SPANS)
def test_cosine_boundaries(span: tuple[int, int]) -> None:
    total, warmup = span
    factors = [lr_factor(step, total, warmup, "cosine") for step in range(total + 1)]
    assert factors[warmup] == 1.0  # the first step after warm-up, whose last step has reached 1 as well
    assert warmup == 0 or (factors[0] == 1 / warmup and factors[warmup - 1] == 1.0)
    assert factors[total] == pytest.approx(0, abs=1e-12)
    assert all(factor > 0 for factor in factors[:total])
    assert factors[:warmup] == sorted(factors[:warmup])
    assert factors[warmup:] == sorted(factors[warmup:], reverse=True)
    assert lr_factor(total + 50, total, warmup, "cosine") == pytest.approx(0, abs=1e-12)


@given(SPANS)
def test_cosine_is_symmetric_about_its_middle(span: tuple[int, int]) -> None:
    total, warmup = span
    for step in range(warmup, total + 1):
        mirrored = lr_factor(total + warmup - step, total, warmup, "cosine")
        assert lr_factor(step, total, warmup, "cosine") + mirrored == pytest.approx(1)


@given(SPANS)
def test_constant_differs_after_warm_up_only(span: tuple[int, int]) -> None:
    total, warmup = span
    for step in range(total + 10):
        expected = lr_factor(step, total, warmup, "cosine") if step < warmup else 1.0
        assert lr_factor(step, total, warmup, "constant") == expected


def test_a_run_shorter_than_its_warm_up_only_rises() -> None:
    assert [lr_factor(step, 3, 10, "cosine") for step in range(3)] == [0.1, 0.2, 0.3]


@pytest.mark.parametrize("kind", ["adamw", "sgd"])
def test_the_optimiser_follows_the_schedule(kind: str) -> None:
    config = OptimConfig(kind=kind, lr=0.5, warmup_steps=2)  # type: ignore[arg-type]
    optimizer, scheduler = build_optimizer(nn.Linear(2, 2).named_parameters(), config, total_steps=6)
    rates = []
    for _ in range(6):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates == pytest.approx([0.25, 0.5, 0.5, *(0.25 * (1 + math.cos(math.pi * k / 4)) for k in (1, 2, 3))])


def test_a_restored_schedule_goes_on() -> None:
    config = OptimConfig(lr=1.0, warmup_steps=3)
    first, schedule = build_optimizer(nn.Linear(2, 2).named_parameters(), config, total_steps=9)
    for _ in range(4):
        first.step()
        schedule.step()
    second, restored = build_optimizer(nn.Linear(2, 2).named_parameters(), config, total_steps=9)
    second.load_state_dict(first.state_dict())
    restored.load_state_dict(schedule.state_dict())
    for optimizer, each in ((first, schedule), (second, restored)):
        optimizer.step()
        each.step()
    assert second.param_groups[0]["lr"] == first.param_groups[0]["lr"] == lr_factor(5, 9, 3, "cosine")


def test_matrices_decay_and_vectors_do_not(tiny_resnet: str) -> None:
    backbone = load_backbone(ModelConfig(tiny_resnet))
    optimizer, _ = build_optimizer(backbone.named_parameters(), OptimConfig(weight_decay=0.3), total_steps=1)
    decays = {
        id(parameter): (group["name"], group["weight_decay"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    norms = {
        id(parameter)
        for module in backbone.modules()
        if isinstance(module, nn.LayerNorm | nn.BatchNorm2d)
        for parameter in module.parameters()
    }
    for name, parameter in backbone.named_parameters():
        vector = id(parameter) in norms or name.endswith(("bias", "logit_scale"))
        assert decays.pop(id(parameter)) == (("no_decay", 0.0) if vector else ("decay", 0.3))
    assert not decays


def test_an_update_without_gradient_is_the_decay_alone() -> None:
    layer = nn.Linear(3, 3)
    weight, bias = layer.weight.detach().clone(), layer.bias.detach().clone()
    optimizer, _ = build_optimizer(layer.named_parameters(), OptimConfig(lr=0.1, weight_decay=0.5), total_steps=10)
    layer.weight.grad, layer.bias.grad = torch.zeros_like(layer.weight), torch.zeros_like(layer.bias)
    optimizer.step()
    torch.testing.assert_close(layer.weight.detach(), weight * (1 - 0.1 * 0.5))
    assert torch.equal(layer.bias, bias)


def test_frozen_parameters_are_left_out(tiny_vit: str) -> None:
    backbone = load_backbone(ModelConfig(tiny_vit))
    freeze_text(backbone)
    optimizer, _ = build_optimizer(backbone.named_parameters(), OptimConfig(), total_steps=1)
    count = sum(len(group["params"]) for group in optimizer.param_groups)
    assert count == len(list(backbone.visual.parameters()))
    with pytest.raises(ConfigError, match="no parameter"):
        build_optimizer(backbone.requires_grad_(False).named_parameters(), OptimConfig(), total_steps=1)
