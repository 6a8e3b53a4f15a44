"""torchattacks through the adapter: each repair on several of its attacks, and what is refused or warned of."""

import builtins
import inspect
import random
import warnings

import numpy as np
import pytest
import torch
import torchattacks
from torch import Tensor, nn

from configs.errors import ConfigError
from lightning_modules.attacks import PGD, misclassified
from lightning_modules.attacks.losses import cross_entropy
from lightning_modules.attacks.zoo import DefectWarning, TorchAttacks
from tests.unit.networks import convolutional, images, linear, seeds

EPS = 8 / 255
SETTINGS: dict[str, tuple[str | None, float, dict[str, object]]] = {
    "FGSM": (None, EPS, {}),
    "PGD": (None, EPS, {"steps": 3}),
    "MIFGSM": (None, EPS, {"steps": 3}),
    "TPGD": (None, EPS, {"steps": 3}),
    "UPGD": (None, EPS, {"steps": 3, "loss": "margin"}),
    "Jitter": (None, EPS, {"steps": 3}),
    "PIFGSM": (None, EPS, {"num_iter_set": 3}),
    "SPSA": (None, EPS, {"nb_sample": 4}),
    "PGDL2": (None, 0.5, {"steps": 3, "alpha": 0.1}),
    "CW": (None, 0.5, {"steps": 12, "lr": 0.05, "c": 20}),
    "DeepFool": (None, 0.5, {"steps": 3}),
    "EADL1": ("l2", 0.5, {"max_iterations": 10, "binary_search_steps": 3, "initial_const": 1, "lr": 0.05}),
    "APGD": ("l2", 0.5, {"steps": 5, "loss": "dlr"}),
    "APGDT": ("linf", EPS, {"steps": 4}),
    "FAB": ("linf", EPS, {"steps": 3}),
    "Square": ("linf", EPS, {"n_queries": 20}),
    "Pixle": ("linf", EPS, {"restarts": 2, "max_iterations": 2, "x_dimensions": (2, 4), "y_dimensions": (2, 4)}),
    "OnePixel": ("l2", 0.5, {"steps": 1, "popsize": 2}),
    "GN": ("l2", 0.5, {}),
}
every_attack = pytest.mark.parametrize("name", SETTINGS)


def adapter(name: str, **arguments: object) -> TorchAttacks:
    norm, eps, own = SETTINGS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DefectWarning)
        return TorchAttacks(name, norm, eps, {**own, **arguments})


def length(perturbation: Tensor, norm: str) -> Tensor:
    flat = perturbation.double().flatten(1)
    return flat.abs().amax(1) if norm == "linf" else flat.norm(dim=1)


@every_attack
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_budget_range_and_precision(name: str, dtype) -> None:
    """Pixels and a model in bfloat16 put torchattacks' own results half a step beyond the budget."""
    clean, attack = images(6, low=-0.2, high=1.2).clamp(0, 1).to(dtype), adapter(name)
    model = convolutional(5).network.to(dtype)
    found = attack(lambda pixels: model(pixels.to(dtype)), clean, torch.arange(6) % 5, cross_entropy, seeds(6))
    assert found.pixels.dtype == torch.float32
    assert length(found.pixels - clean.float(), attack.budget).max() <= attack.eps + 1e-6
    assert found.pixels.min() >= 0
    assert found.pixels.max() <= 1


@every_attack
def test_it_is_torchattacks_own_result_where_nothing_is_broken(name: str) -> None:
    """Called directly with the same seed, on a network whose logits are positive."""
    network, clean, attack = convolutional(12), images(6, low=0.1, high=0.9), adapter(name)

    class Positive(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network.network.float()

        def forward(self, pixels: Tensor) -> Tensor:
            return self.network(pixels.float()) + 4

    model = Positive().eval()
    labels, own = model(clean).argmax(1), dict(attack.arguments)
    accepted = inspect.signature(getattr(torchattacks, name)).parameters
    given = {"eps": attack.eps, "max_epsilon": attack.eps, "norm": {"linf": "Linf", "l2": "L2"}[attack.budget]}
    own |= {key: value for key, value in {**given, "n_classes": 10, "seed": 5}.items() if key in accepted}
    with torch.random.fork_rng():
        direct = attack_with_seed(getattr(torchattacks, name)(model, **own), clean, labels)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lightning_modules.attacks.noise.derive", lambda *_: torch.tensor([5]))
        if name == "FAB" or name.startswith("APGD") or name == "Square":
            attack = adapter(name, seed=5)
        found = attack(model, clean, labels, cross_entropy, seeds(6))
    shrunk = direct - clean
    outside = length(shrunk, attack.budget) > attack.eps + 1e-6
    if name in ("PGDL2", "APGD", "APGDT", "FAB", "Square", "FGSM", "PGD", "MIFGSM"):
        assert not outside.any()
    torch.testing.assert_close(found.pixels[~outside], direct[~outside], rtol=0, atol=2e-4 if name == "CW" else 1e-5)


def attack_with_seed(attack, clean: Tensor, labels: Tensor) -> Tensor:
    state = random.getstate(), np.random.get_state()
    torch.manual_seed(5)
    np.random.seed(5)
    random.seed(5)
    try:
        return attack(clean.clone(), labels).detach()
    finally:
        random.setstate(state[0])
        np.random.set_state(state[1])


class Batch(nn.Module):
    """Batch normalisation frozen in evaluation mode within a network in training mode; weights that have gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.frozen, self.free = nn.BatchNorm2d(3).eval(), nn.BatchNorm2d(3)
        self.head = nn.Linear(192, 12)
        self.head.bias.requires_grad_(False)
        self.head.weight.grad = torch.ones_like(self.head.weight)
        self.calls, self.raises = 0, False

    def forward(self, pixels: Tensor) -> Tensor:
        self.calls += 1
        if self.raises and self.calls == 3:
            raise RuntimeError("out of memory")
        return self.head(self.frozen(pixels).flatten(1))


@every_attack
@pytest.mark.parametrize("raises", [False, True])
@pytest.mark.parametrize("wrapped", [False, True])
def test_leaves_no_trace(name: str, raises: bool, wrapped: bool, capsys) -> None:
    model, clean = Batch(), images(4)
    model.raises = raises
    before, labels = clean.clone(), model.head(model.frozen(clean).flatten(1)).argmax(1)
    model.calls, modes = 0, [module.training for module in model.modules()]
    flags = [parameter.requires_grad for parameter in model.parameters()]
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    try:
        found = adapter(name)(
            (lambda pixels: model(pixels)) if wrapped else model, clean, labels, cross_entropy, seeds(4)
        )
        assert not any(each.requires_grad for each in found)
        assert model.calls < 3 or not raises
    except RuntimeError as error:
        assert raises
        assert str(error) == "out of memory"  # noqa: PT017
    assert [module.training for module in model.modules()] == modes == [True, False, True, True]
    assert [parameter.requires_grad for parameter in model.parameters()] == flags
    assert (model.head.weight.grad == 1).all()
    assert all(each.grad is None for each in (*model.frozen.parameters(), *model.free.parameters(), model.head.bias))
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert (np.random.get_state()[1] == states[2]).all()
    assert torch.equal(clean, before)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("name", ["PGD", "MIFGSM", "SPSA", "APGDT", "Square", "Pixle"])
def test_random_draws_follow_from_the_seeds_alone(name: str) -> None:
    model, clean = convolutional(12), images(6)
    labels = model(clean).argmax(1)
    results = []
    for start, own in ((1, seeds(6)), (2, seeds(6)), (3, seeds(6) + 7)):
        with torch.random.fork_rng():
            torch.manual_seed(start)
            results.append(adapter(name)(model, clean, labels, cross_entropy, own).pixels)
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2]) == (name == "MIFGSM")  # which draws nothing


@pytest.mark.parametrize("name", ["CW", "EADL1", "UPGD"])
def test_negative_logits_are_attacked(name: str) -> None:
    """Their margins take a masked class for one of logit 0, the best there is; UPGD's then has no gradient either."""
    model, clean = linear(5), images(8)
    labels = model(clean).argmax(1)

    def negative(pixels: Tensor) -> Tensor:
        return model(pixels).float() - 50

    shifted = adapter(name)(negative, clean, labels, cross_entropy, seeds(8), misclassified)
    plain = adapter(name)(
        lambda pixels: model(pixels).float() + 50, clean, labels, cross_entropy, seeds(8), misclassified
    )
    assert shifted.fallen.any()
    assert torch.equal(shifted.fallen, plain.fallen)
    torch.testing.assert_close(shifted.pixels, plain.pixels, rtol=0, atol=2e-2)


@pytest.mark.parametrize("name", ["FGSM", "PGD", "PGDL2", "APGD", "FAB", "Square", "CW"])
def test_falling_is_judged_on_the_projected_image(name: str) -> None:
    model, clean = convolutional(12), images(24)
    labels = model(clean).argmax(1)
    attack = adapter(name)
    found = attack(model, clean, labels, cross_entropy, seeds(24), misclassified)
    assert torch.equal(found.fallen, misclassified(model(found.pixels), labels))
    assert found.fallen.any()
    assert not attack(model, clean, labels, cross_entropy, seeds(24)).fallen.any()


def test_the_smallest_perturbation_counts_within_the_budget_only() -> None:
    model, clean = convolutional(12), images(24)
    labels, attack = model(clean).argmax(1), adapter("DeepFool")
    length_needed = length(attack(model, clean, labels, cross_entropy, seeds(24)).pixels - clean, "l2")
    tiny = TorchAttacks("DeepFool", None, 0.05, attack.arguments)
    found = tiny(model, clean, labels, cross_entropy, seeds(24), misclassified)
    assert length(found.pixels - clean, "l2").max() <= 0.05 + 1e-6
    assert not found.fallen[length_needed > 0.1].any()
    assert found.fallen[length_needed < 0.05].all()
    assert 0 < found.fallen.sum() < 24


@every_attack
def test_a_sample_that_is_not_a_number_falls_alone(name: str) -> None:
    model, clean = convolutional(12), images(4)
    labels, dark = model(clean).argmax(1), 2
    clean[dark] = 0.0

    def broken(pixels: Tensor) -> Tensor:
        spoilt = pixels.flatten(1).mean(1) < 0.2
        return torch.where(spoilt[:, None], float("nan"), model(pixels).float() + 1)

    found = adapter(name)(broken, clean, labels, cross_entropy, seeds(4), misclassified)
    assert found.fallen[dark]
    assert torch.equal(found.pixels[dark], clean[dark])
    assert found.pixels.isfinite().all()


def test_a_result_that_is_not_a_number_is_the_clean_image() -> None:
    """DeepFool divides by the length of a gradient: 0 where the model is constant."""
    model, clean = linear(5), images(1)
    labels, fixed = model(clean).argmax(1), model(clean).detach()
    found = adapter("DeepFool")(lambda pixels: model(pixels) * 0 + fixed, clean, labels, cross_entropy, seeds(1))
    assert found.zero_gradient.tolist() == [1.0]
    assert torch.equal(found.pixels, clean)


def test_a_gradient_that_is_partly_not_a_number_still_shows_the_way() -> None:
    """The root's slope at 0 is infinite, and times 0 not a number; PGDL2 divides by the length of all of it."""
    model, clean = linear(5), images(4, low=0.3, high=0.7)
    clean[:, 0, 0, 0] = 0.0

    def rooted(pixels: Tensor) -> Tensor:
        return model(pixels) + 0.0 * pixels[:, 0, 0, :1].sqrt()

    arguments = {"steps": 3, "alpha": 0.1, "random_start": False}
    found = TorchAttacks("PGDL2", None, 0.5, arguments)(rooted, clean, model(clean).argmax(1), cross_entropy, seeds(4))
    assert (length(found.pixels - clean, "l2") > 0.2).all()


@pytest.mark.parametrize("name", ["FGSM", "PGD", "DeepFool", "FAB"])
def test_weights_get_no_gradient_even_for_a_moment(name: str) -> None:
    model, clean, reached = convolutional(12), images(4), []
    for parameter in model.parameters():
        parameter.register_hook(lambda gradient: reached.append(gradient.shape))
    adapter(name)(model, clean, model(clean).argmax(1), cross_entropy, seeds(4))
    assert not reached


def test_targeted_attacks_aim_at_nine_classes_or_as_many_as_there_are() -> None:
    """torchattacks' default of 10 classes indexes out of range below, and misses targets of ranks that exist above."""
    for classes, runs in ((5, 4), (10, 9), (20, 9)):
        model, calls = convolutional(classes), []
        clean = images(2)
        labels = model(clean).argmax(1)

        def counted(pixels: Tensor, model=model, calls=calls) -> Tensor:
            calls.append(pixels.requires_grad)
            return model(pixels)

        with pytest.warns(DefectWarning):
            attack = TorchAttacks("APGDT", "linf", 1e-5, {})
        attack(counted, clean, labels, cross_entropy, seeds(2))
        assert sum(calls) == 1 + runs * 11  # one for the share of zero gradients; 10 steps and the start a target


@pytest.mark.parametrize(
    ("name", "arguments", "classes", "fewest"),
    [("APGD", {"loss": "dlr"}, 2, 3), ("APGDT", {}, 3, 4), ("JSMA", {}, 5, 10)],
)
def test_too_few_classes(name: str, arguments: dict[str, object], classes: int, fewest: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DefectWarning)
        attack = TorchAttacks(name, "linf", EPS, arguments)
    with pytest.raises(ConfigError, match=f"at least {fewest} classes, got {classes}"):
        attack(convolutional(classes), images(2), torch.zeros(2, dtype=torch.int64), cross_entropy, seeds(2))


def test_targets_must_be_labels() -> None:
    model, clean = convolutional(5), images(2)
    with pytest.raises(ConfigError, match="attacks labels only"):
        adapter("PGD")(model, clean, model(clean), cross_entropy, seeds(2))


def test_an_empty_batch() -> None:
    found = adapter("PGD")(convolutional(5), images(0), torch.zeros(0, dtype=torch.int64), cross_entropy, seeds(0))
    assert [len(each) for each in found] == [0, 0, 0]


@pytest.mark.parametrize(
    ("name", "norm", "eps", "arguments", "parts"),
    [
        ("AutoAttack", None, EPS, {}, ["10 steps where the reference gives them 100", "attack.kind=auto_attack"]),
        ("MultiAttack", None, EPS, {}, ["attack objects", "version=custom"]),
        ("LGV", None, EPS, {}, ["data loader"]),
        ("pgd", None, EPS, {}, ["no attack 'pgd'", "did you mean 'PGD'?"]),
        ("MIFSGM", None, EPS, {}, ["did you mean 'MIFGSM'?"]),
        ("PGD", None, EPS, {"stpes": 3}, ["no argument 'stpes'", "did you mean 'steps'?"]),
        ("PGD", None, EPS, {"eps": 0.1}, ["hold 'eps'", "eps_255"]),
        ("PGD", None, EPS, {"model": None}, ["no argument 'model'"]),
        ("PGD", "l2", EPS, {}, ["under linf, not l2", "set norm=linf"]),
        ("PGDL2", "linf", EPS, {}, ["under l2, not linf"]),
        ("OnePixel", None, EPS, {}, ["no norm of its own"]),
        ("PGD", None, 8.0, {}, ["above 0 and at most 1", "got 8.0"]),
        ("PGD", None, 0.0, {}, ["above 0"]),
        ("PGDL2", None, float("nan"), {}, ["above 0", "got nan"]),
        ("EADL1", "l2", 1.0, {"max_iterations": 9}, ["max_iterations >= 10"]),
    ],
)
def test_refusals_say_what_to_do(name: str, norm, eps: float, arguments, parts: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        TorchAttacks(name, norm, eps, arguments)
    message = str(caught.value)
    assert all(part in message for part in parts), message
    assert "\n" not in message


def test_a_missing_package_is_named(monkeypatch) -> None:
    real = builtins.__import__

    def absent(name: str, *arguments: object, **keywords: object) -> object:
        if name == "torchattacks":
            raise ModuleNotFoundError("No module named 'torchattacks'")
        return real(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(ConfigError, match="pip install torchattacks"):
        TorchAttacks("PGD", None, EPS)


@pytest.mark.parametrize(
    ("name", "norm", "arguments", "parts"),
    [
        ("APGD", "linf", {}, ["10 steps", "reference runs 100"]),
        ("FAB", "linf", {"steps": 100}, ["gradient for every class"]),
        ("APGDT", "l2", {"steps": 100}, ["step size of the first sample"]),
        ("Square", "linf", {}, ["resc_schedule=false"]),
        ("CW", None, {}, ["search for its constant", "sum of its losses", "exactly 0 or 1"]),
        ("MIFGSM", None, {}, ["stands still once its gradient has been 0"]),
        ("OnePixel", "l2", {}, ["another norm"]),
    ],
)
def test_defects_that_remain_are_warned_of(name: str, norm, arguments, parts: list[str]) -> None:
    with pytest.warns(DefectWarning) as caught:
        TorchAttacks(name, norm, 0.1, arguments)
    (warned,) = caught
    assert f"torchattacks' {name} " in str(warned.message)
    assert all(part in str(warned.message) for part in parts)


def test_steps_longer_than_the_radius_are_warned_of() -> None:
    with pytest.warns(DefectWarning, match=r"steps of 0\.007843, more than eps = 0\.003922"):
        TorchAttacks("PGD", None, 1 / 255)


@pytest.mark.parametrize(
    ("name", "norm", "arguments"),
    [
        ("PGD", None, {}),
        ("DeepFool", None, {}),
        ("APGD", "linf", {"steps": 100}),
        ("FAB", "l2", {"steps": 100, "multi_targeted": True}),
        ("Square", "linf", {"resc_schedule": False}),
    ],
)
def test_no_warning_where_nothing_remains(name: str, norm, arguments) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        TorchAttacks(name, norm, 0.1, arguments)


def test_equals_our_own_pgd() -> None:
    model, clean = convolutional(5), images(16)
    labels = model(clean).argmax(1)
    theirs = TorchAttacks("PGD", "linf", EPS, {"steps": 10, "alpha": 2 / 255, "random_start": False})
    ours = PGD("linf", EPS, 2 / 255, 10, random_start=False)
    found = theirs(model, clean, labels, cross_entropy, seeds(16), misclassified)
    own = ours(model, clean, labels, cross_entropy, seeds(16), misclassified)
    torch.testing.assert_close(found.pixels, own.pixels, rtol=0, atol=1e-5)
    assert torch.equal(found.fallen, own.fallen)
