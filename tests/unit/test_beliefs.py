"""Each check shows on a model that hides from attacks in its way, and none on one that doesn't hide."""

import copy
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import pytest
import torch
from networks import Doubled
from torch import Tensor, nn

from configs.errors import ConfigError
from lightning_modules.attacks import signs
from lightning_modules.attacks.beliefs import Beliefs, examine

CLASSES, SAMPLES, EPS = 6, 48, 0.08
Model = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Trained:
    """Two networks that tell noisy patterns apart, and such patterns."""

    network: nn.Module
    other: nn.Module
    pixels: Tensor
    labels: Tensor

    def examine(self, model: Model, eps: float = EPS, **options: object) -> Beliefs:
        settings = {"steps": 12, "queries": 60, **options}
        seeds = torch.arange(len(self.pixels))
        return examine(model, self.pixels, self.labels, seeds, eps, "linf", **settings)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def trained() -> Trained:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        patterns = 0.5 + 0.12 * torch.randn(CLASSES, 3, 8, 8)
        labels = torch.randint(CLASSES, (256 + SAMPLES,))
        pixels = (patterns[labels] + 0.12 * torch.randn(len(labels), 3, 8, 8)).clamp(0, 1)
        networks = [_fit(pixels[SAMPLES:], labels[SAMPLES:]) for _ in range(2)]
    return Trained(networks[0], networks[1], pixels[:SAMPLES], labels[:SAMPLES])


def _fit(pixels: Tensor, labels: Tensor) -> nn.Module:
    network = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.GELU(), nn.Flatten(), nn.Linear(72, CLASSES))
    optimiser = torch.optim.AdamW(network.parameters(), lr=2e-2)
    for _ in range(60):
        optimiser.zero_grad()
        nn.functional.cross_entropy(network(pixels), labels).backward()
        optimiser.step()
    return network.eval().requires_grad_(False)


def values(found: Beliefs) -> dict[str, float]:
    return {check.name: check.value for check in found.checks}


def doubted(found: Beliefs) -> set[str]:
    return {check.name for check in found.checks if check.reason}


@pytest.mark.parametrize("eps", [0.01, 0.08, 0.3])
def test_a_plain_model_passes_every_check_at_radii_from_harmless_to_deadly(trained: Trained, eps: float) -> None:
    found = trained.examine(trained.network, eps, undefended_fn=trained.other, logit_scale=1.0)
    attacked = {"zero_gradient", "blind", "rescaled", "unit_scale", "black_box", "transfer", "huge_eps"}
    assert set(values(found)) == {"randomised", "softmax"} | attacked
    assert found.suspect == []
    assert found.correct > 0.9 * SAMPLES


@pytest.mark.parametrize("norm", ["l2", "l1"])
def test_a_plain_model_passes_under_other_norms(trained: Trained, norm: str) -> None:
    eps = {"l2": 0.5, "l1": 3.0}[norm]
    seeds = torch.arange(SAMPLES)
    found = examine(trained.network, trained.pixels, trained.labels, seeds, eps, norm, queries=30)  # type: ignore[arg-type]
    assert found.suspect == []


def test_outputs_that_change_from_one_answer_to_the_next_are_randomised(trained: Trained) -> None:
    generator = torch.Generator().manual_seed(0)
    found = trained.examine(lambda pixels: trained.network(pixels) + torch.randn(CLASSES, generator=generator))
    assert "randomised" in doubted(found)
    assert values(found)["randomised"] > 0.01


def test_rounding_is_not_taken_for_randomness() -> None:
    outputs = torch.randn(16, CLASSES, generator=torch.Generator().manual_seed(0))
    assert not signs.randomised(outputs, outputs + 1e-5).reason
    assert signs.randomised(outputs, outputs + 1e-2 * outputs.flip(1)).reason
    assert not signs.randomised(1e3 * outputs, 1e3 * outputs + 1e-2).reason, "what counts is the change over the length"


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_probabilities_are_no_logits_in_any_precision(trained: Trained, kind: torch.dtype) -> None:
    assert "softmax" in doubted(trained.examine(lambda pixels: trained.network(pixels).softmax(1).to(kind)))


@pytest.mark.parametrize("squash", [torch.sigmoid, torch.log_softmax], ids=["sigmoid", "log_softmax"])
def test_outputs_that_are_no_distribution_are_not_called_one(trained: Trained, squash: Callable[..., Tensor]) -> None:
    dimension = (1,) if squash is torch.log_softmax else ()
    found = trained.examine(lambda pixels: squash(trained.network(pixels), *dimension))
    assert values(found)["softmax"] == 0


@pytest.mark.parametrize(
    "hide",
    [
        pytest.param(lambda network, pixels: network(pixels.detach()), id="graph cut"),
        pytest.param(lambda network, pixels: network((pixels * 64).round() / 64), id="quantised input"),
        pytest.param(lambda network, pixels: network(pixels).mul(64).round().div(64), id="quantised output"),
    ],
)
def test_a_model_without_gradient_is_caught_four_times(
    trained: Trained, hide: Callable[[nn.Module, Tensor], Tensor]
) -> None:
    found = trained.examine(lambda pixels: hide(trained.network, pixels), undefended_fn=trained.network)
    assert {"zero_gradient", "blind", "transfer", "huge_eps"} <= doubted(found)
    assert values(found)["zero_gradient"] == values(found)["blind"] == 1
    assert values(found)["transfer"] > 0.5


def test_a_model_that_is_deaf_to_most_pixels_has_zero_gradient_but_is_not_blind(trained: Trained) -> None:
    mask = torch.zeros(8, 8)
    mask[:2] = 1
    found = trained.examine(lambda pixels: trained.network(pixels * mask + trained.pixels.mean(0) * (1 - mask)))
    assert "zero_gradient" in doubted(found)
    assert values(found)["blind"] == 0


def test_gradients_that_mislead_are_caught_without_looking_at_them(trained: Trained) -> None:
    def misled(pixels: Tensor) -> Tensor:
        wrong = trained.other(pixels.flip(3))
        return trained.network(pixels).detach() + wrong - wrong.detach()

    found = trained.examine(misled, eps=0.2, undefended_fn=trained.network)
    assert doubted(found) == {"black_box", "transfer", "huge_eps"}


@pytest.mark.parametrize("factor", [1e4, 1e-4], ids=["saturated", "vanishing"])
def test_a_scale_that_hides_the_gradient_shows_on_rescaled_logits(trained: Trained, factor: float) -> None:
    found = trained.examine(lambda pixels: factor * trained.network(pixels), logit_scale=factor)
    assert "rescaled" in doubted(found)
    assert values(found)["rescaled"] > 0.2
    assert not {"black_box", "huge_eps"} & doubted(found), "losses that don't know the scale find the samples"


def test_without_its_scale_a_saturated_model_shows_its_gradient(trained: Trained) -> None:
    found = trained.examine(lambda pixels: 1e4 * trained.network(pixels), logit_scale=1e4)
    plain = trained.examine(trained.network)
    assert "unit_scale" in doubted(found)
    assert values(found)["unit_scale"] > 0.2
    assert "unit_scale" not in values(plain), "not asked for"


def test_neither_the_batch_nor_later_samples_count(trained: Trained) -> None:
    exact = Doubled(copy.deepcopy(trained.network))
    few = Trained(exact, exact, trained.pixels[:20], trained.labels[:20])
    assert few.examine(exact, slots=7) == trained.examine(exact, samples=20, slots=64)


def test_a_model_that_has_nothing_right_is_not_attacked(trained: Trained) -> None:
    wrong = Trained(trained.network, trained.other, trained.pixels, (trained.network(trained.pixels).argmax(1) + 1) % 6)
    found = wrong.examine(trained.network)
    assert set(values(found)) == {"randomised", "softmax"}
    assert (found.samples, found.correct) == (SAMPLES, 0)


def test_a_sample_whose_outputs_are_not_numbers_is_not_a_correct_one(trained: Trained) -> None:
    def broken(pixels: Tensor) -> Tensor:
        return trained.network(pixels).masked_fill((pixels.mean((1, 2, 3)) > 0.5)[:, None], math.nan)

    found = trained.examine(broken)
    assert 0 < found.correct < SAMPLES
    assert values(found)["randomised"] == 0


def test_an_examination_leaves_no_trace(trained: Trained) -> None:
    network = copy.deepcopy(trained.network).requires_grad_(True)
    state, pixels = torch.get_rng_state(), trained.pixels.clone()
    trained.examine(network, undefended_fn=network)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(trained.pixels, pixels)
    assert all(parameter.grad is None and parameter.requires_grad for parameter in network.parameters())


def test_the_fields_of_a_result_row_are_json_and_name_every_reason(trained: Trained) -> None:
    fields = trained.examine(lambda pixels: trained.network(pixels.detach())).fields()
    assert json.loads(json.dumps(fields)) == fields
    assert fields["examined"] == SAMPLES
    assert fields["zero_gradient"] == 1.0
    assert "100% of the gradient is zero" in fields["suspect"]


def test_bad_input_is_refused(trained: Trained) -> None:
    with pytest.raises(ConfigError, match="no samples"):
        trained.examine(trained.network, samples=0)
    with pytest.raises(ConfigError, match="logit_scale"):
        trained.examine(trained.network, logit_scale=0.0)


@pytest.mark.parametrize(("n", "share"), [(1, 0.002), (7, 0.5), (64, 0.002), (64, 0.5), (100, 0.1)])
def test_chances_are_those_of_the_binomial_distribution(n: int, share: float) -> None:
    exact = Fraction(share)
    terms = [math.comb(n, k) * exact**k * (1 - exact) ** (n - k) for k in range(n + 1)]
    for count in (0, 1, 2, n // 2, n):
        assert signs.chance(count, n, share) == pytest.approx(float(sum(terms[count:])), rel=1e-9)


def test_limits_are_those_that_the_docstrings_tell() -> None:
    def limit(n: int) -> int:
        return next(count for count in range(n + 1) if signs.too_many(count, n))

    assert {n: limit(n) for n in (16, 64, 10_000)} == {16: 2, 64: 2, 10_000: 32}
    assert all(limit(n) <= limit(2 * n) for n in (8, 64, 512))


def test_samples_that_fall_to_one_of_two_equal_attacks_each_raise_no_doubt() -> None:
    def found(more: int, less: int) -> signs.Check:
        fallen = torch.zeros(64, dtype=torch.bool)
        otherwise = fallen.clone()
        otherwise[:more], fallen[more : more + less] = True, True
        return signs.gained("rescaled", "cross-entropy", fallen, otherwise)

    assert found(7, 0).reason
    assert not found(6, 0).reason
    assert not found(20, 15).reason
    assert not found(0, 40).reason
    assert found(20, 15).value == pytest.approx(5 / 64)
