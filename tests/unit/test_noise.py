"""Counter-based noise: the published mixers, the right distributions, no dependence on batch or global state."""

import math

import pytest
import torch
from scipy import stats

from lightning_modules.attacks.noise import derive, normal, uniform

WORD64, WORD32 = (1 << 64) - 1, (1 << 32) - 1


def splitmix64(state: int) -> int:
    state = (state + 0x9E3779B97F4A7C15) & WORD64
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & WORD64
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & WORD64
    return state ^ (state >> 31)


def lowbias32(state: int, key: int) -> int:
    state = ((state ^ (state >> 16)) * 0x7FEB352D) & WORD32
    state ^= key & WORD32
    state = ((state ^ (state >> 15)) * 0x846CA68B) & WORD32
    return state ^ (state >> 16)


@pytest.mark.parametrize("seed", [0, 1, -1, 2**62 + 12345, -(2**63)])
def test_bits_are_those_of_unbounded_integers(seed: int) -> None:
    key = splitmix64(splitmix64(seed & WORD64))  # the seed, then stream 0
    bits = [lowbias32((i + key) & WORD32, key >> 32) for i in range(50)]
    expected = torch.tensor([(each >> 8) / 2**23 - 1 for each in bits])
    assert torch.equal(uniform(torch.tensor([seed]), (50,))[0], expected)


def test_splitmix64_published_value() -> None:
    assert int(derive(0)) & WORD64 == 0xE220A8397B1DCDAF


@pytest.mark.parametrize("seeds", [torch.arange(200), torch.arange(200) << 32, derive(7, torch.arange(200), 3)])
def test_uniform_distribution(seeds: torch.Tensor) -> None:
    draws = uniform(seeds, (1000,)).double()
    assert draws.min() >= -1
    assert draws.max() < 1
    n = draws.numel()
    assert abs(draws.mean()) < 4 * math.sqrt(1 / 3 / n)
    assert abs(draws.var() - 1 / 3) < 4 * math.sqrt(4 / 45 / n)
    assert stats.kstest(draws.flatten().numpy(), "uniform", args=(-1, 2)).pvalue > 1e-3
    assert stats.kstest(draws.mean(1).mul(math.sqrt(3000)).numpy(), "norm").pvalue > 1e-3  # no seed is off
    for left, right in ((draws[1:], draws[:-1]), (draws[:, 1:], draws[:, :-1]), (draws[1:, 1:], draws[:-1, :-1])):
        correlation = 3 * (left * right).mean()
        assert abs(correlation) < 4 / math.sqrt(left.numel())


def test_normal_distribution() -> None:
    draws = normal(torch.arange(200), (1000,)).double()
    assert draws.isfinite().all()
    assert stats.kstest(draws.flatten().numpy(), "norm").pvalue > 1e-3
    assert abs((draws[:, 1:] * draws[:, :-1]).mean()) < 4 / math.sqrt(draws.numel())
    assert abs((draws * uniform(torch.arange(200), (1000,))).mean()) < 4 / math.sqrt(draws.numel())


@pytest.mark.parametrize("draw", [uniform, normal])
def test_a_sample_does_not_see_its_batch_nor_the_global_generator(draw) -> None:
    seeds = derive(3, torch.arange(8))
    state = torch.get_rng_state()
    together = draw(seeds, (3, 5, 5))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(together[5], draw(seeds[5:6], (3, 5, 5))[0])
    assert torch.equal(together.flip(0), draw(seeds.flip(0), (3, 5, 5)))


def test_derived_seeds_differ_by_counter_and_by_order() -> None:
    index = torch.arange(10_000)
    seeds = torch.cat([derive(0, index, step) for step in range(10)] + [derive(1, index, 0)])
    assert len(seeds.unique()) == len(seeds)
    assert derive(0, 1, 2) != derive(0, 2, 1)
    assert torch.equal(derive(5, index, 2), derive(derive(derive(5), 0) * 0 + 5, index, 2))
