"""The adapter, the push, the loss and the scores of an Immunity: against loops, and for their invariances."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from configs.errors import DataError
from configs.schema.vaccination import FeatureAttack
from lightning_modules.open_world import push as pushes
from lightning_modules.open_world.adapter import Adapter
from lightning_modules.open_world.choice import Trial, best, mean, trials
from lightning_modules.open_world.immunity import Immunity
from lightning_modules.open_world.push import Pairing, nearest, push
from lightning_modules.open_world.vaccine import vaccination_loss, worst_embeddings
from lightning_modules.open_world.vmf import log_normaliser

DIMENSION, CLASSES, ANTIBODIES = 8, 3, 11
NAMES = ("ant", "bee", "cow")
PAIRINGS: tuple[Pairing, ...] = ("own", "hardest", "all")


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def units(count: int, seed: int = 0) -> Tensor:
    return F.normalize(normal(count, DIMENSION, seed=seed), dim=1)


OWNERS = torch.arange(ANTIBODIES) % 5 - 1  # -1 .. 3: class 3 is nobody's here, and class 1 has three


def immunity(**changes: Any) -> Immunity:
    """With an adapter that is not the identity."""
    adapter = Adapter(DIMENSION, 6)
    with torch.no_grad():
        adapter.outward.weight.copy_(normal(DIMENSION, 6, seed=5))
    given = {
        "kappa": torch.tensor([20.0, 22.0, 30.0]),
        "owners": OWNERS.clamp_max(2),
        "antibodies": units(ANTIBODIES, 2),
    }
    given |= changes
    return Immunity(adapter, units(CLASSES, 1), class_names=NAMES, **given)


@pytest.fixture(params=[1, 2**24], ids=["one by one", "at once"])
def _blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pushes, "_BLOCK", request.param)


def test_the_adapter_is_the_identity_at_first() -> None:
    embeddings = normal(5, DIMENSION) * 7
    torch.testing.assert_close(Adapter(DIMENSION, 4)(embeddings), F.normalize(embeddings, dim=1))


def test_the_adapter_is_the_seeds_and_draws_nothing_from_the_global_generator() -> None:
    before = torch.get_rng_state()
    one, same, other = (Adapter(DIMENSION, 4, seed).inward.weight for seed in (1, 1, 2))
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def slow_push(points: Tensor, antibodies: Tensor, labels: Tensor, margin: float, pairing: Pairing) -> Tensor:
    """Pair by pair."""
    found = []
    for point, label in zip(points, labels.tolist(), strict=True):
        terms = [
            (point @ antibody - margin).clamp_min(0) ** 2
            for antibody, owner in zip(antibodies, OWNERS.tolist(), strict=True)
            if pairing != "own" or owner in (label, -1)
        ]
        found.append(torch.stack(terms).max() if pairing == "hardest" else torch.stack(terms).sum())
    return torch.stack(found)


@pytest.mark.usefixtures("_blocks")
@pytest.mark.parametrize("pairing", PAIRINGS)
@pytest.mark.parametrize("margin", [-1.0, 0.0, 0.3])
def test_push_and_its_gradient_equal_loops(pairing: Pairing, margin: float) -> None:
    antibodies, labels = units(ANTIBODIES, 2), torch.tensor([0, 1, 2, 1, 3])
    found = []
    for compute in (slow_push, lambda *rest: push(rest[0], rest[1], OWNERS, *rest[2:])):
        points = units(5).requires_grad_()
        value = compute(points, antibodies, labels, margin, pairing)
        (gradient,) = torch.autograd.grad((value * torch.arange(1, 6)).sum(), points)
        found.append((value, gradient))
    torch.testing.assert_close(found[1], found[0])


@pytest.mark.usefixtures("_blocks")
def test_nearest_among_all_and_among_a_class() -> None:
    points, antibodies = units(6), units(ANTIBODIES, 2)
    cosines = points @ antibodies.T
    assert torch.equal(nearest(points, antibodies, OWNERS), cosines.argmax(dim=1))
    owners = OWNERS.masked_fill(OWNERS < 0, 0)  # then class 5 has none
    classes = torch.tensor([0, 1, 2, 0, 5, 1])
    for row, label in enumerate(classes.tolist()):
        mine = (owners == label).nonzero().flatten()
        expected = int(mine[cosines[row, mine].argmax()]) if len(mine) else -1
        assert int(nearest(points, antibodies, owners, classes)[row]) == expected


@pytest.mark.parametrize("pairing", PAIRINGS)
def test_no_antibody_pushes_nothing(pairing: Pairing) -> None:
    nothing = push(units(4), torch.zeros(0, DIMENSION), OWNERS[:0], torch.zeros(4).long(), 0.0, pairing)
    assert torch.equal(nothing, torch.zeros(4))


def test_loss_is_the_posteriors_cross_entropy_and_the_push() -> None:
    """Against the density itself, in float64 and sample by sample."""
    model, embeddings, labels = immunity(), normal(4, DIMENSION, seed=9), torch.tensor([0, 2, 1, 1])
    points = model.adapt(embeddings).detach().double()
    pulls = []
    for point, label in zip(points, labels.tolist(), strict=True):
        kappa = model.kappa.double()
        densities = [
            float(log_normaliser(kappa[each], DIMENSION) + kappa[each] * (model.prototypes[each].double() @ point))
            for each in range(CLASSES)
        ]
        pulls.append(torch.tensor(densities).logsumexp(0) - densities[label])
    parts = vaccination_loss(model, embeddings, labels, margin=0.1, weight=0.7, pairing="all")
    away = push(points.float(), model.antibodies, model.owners, labels, 0.1, "all").mean()
    assert parts["pull"].item() == pytest.approx(torch.stack(pulls).mean().item(), rel=1e-4)
    assert parts["loss"].item() == pytest.approx((parts["pull"] + 0.7 * away).item(), rel=1e-6)


def test_a_shared_kappa_is_a_temperature() -> None:
    model = immunity(kappa=torch.full((CLASSES,), 900.0))
    points = model.adapt(normal(4, DIMENSION))
    assert torch.equal(model.logits(points), 900 * model.similarities(points))


@pytest.mark.parametrize("steps", [1, 4])
def test_worst_embeddings_lie_in_the_ball_and_raise_the_loss_of_each_sample(steps: int) -> None:
    model, embeddings, labels = immunity(), normal(12, DIMENSION, seed=4) * 3, torch.arange(12) % 3
    attack = FeatureAttack(eps=0.2, steps=steps)

    def losses(moved: Tensor) -> Tensor:
        return F.cross_entropy(model.logits(model.adapt(moved)), labels[: len(moved)], reduction="none")

    clean = F.normalize(embeddings, dim=1)
    found = worst_embeddings(lambda moved: losses(moved).sum(), embeddings, attack)
    assert not found.requires_grad
    assert ((found - clean).norm(dim=1) <= 0.2 + 1e-6).all()
    raised = losses(found) - losses(clean)
    assert (raised > 0).float().mean() > 0.9
    around = clean + 0.2 * F.normalize(normal(12, DIMENSION, seed=8), dim=1)
    assert raised.mean() > (losses(around) - losses(clean)).mean()
    alone = worst_embeddings(lambda moved: losses(moved).sum(), embeddings[:1], attack)
    torch.testing.assert_close(found[:1], alone)


@pytest.mark.parametrize("danger", ["global", "own"])
def test_score_equals_its_definition(danger: str) -> None:
    """Also for a class without antibodies of its own, which is judged by all of them."""
    owners = torch.where(OWNERS.clamp_max(2) == 1, 0, OWNERS.clamp_max(2)).clamp_min(0)
    model = immunity(danger=danger, lambda_inf=0.6, owners=owners, kappa=torch.full((CLASSES,), 20.0))
    embeddings = normal(40, DIMENSION, seed=6)
    points = model.adapt(embeddings).detach()
    known, cosines = points @ model.prototypes.T, points @ model.antibodies.T
    seen = set()
    for row, score in enumerate(model.score(embeddings).tolist()):
        label = int(model.classify(embeddings)[row])
        mine = (owners == label) if danger == "own" and label != 1 else torch.ones(ANTIBODIES).bool()
        seen.add(label)
        assert score == pytest.approx(float(known[row].max() - 0.6 * cosines[row, mine].max()), abs=1e-6)
    assert seen == {0, 1, 2}


@pytest.mark.parametrize("method", ["score", "recalibrated", "accept", "classify"])
@pytest.mark.parametrize("recalibration", ["threshold", "weibull"])
def test_each_sample_has_its_own_score(method: str, recalibration: Any) -> None:
    model = immunity(recalibration=recalibration, danger="own")
    model.calibrate(normal(300, DIMENSION, seed=3), tail=0.2, rejected=0.05, tail_samples=10)
    embeddings = normal(20, DIMENSION, seed=6)
    together = getattr(model, method)(embeddings)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(getattr(model, method)(embeddings[order]), together[order])
    alone = torch.cat([getattr(model, method)(row[None] * 3) for row in embeddings])  # nor does its length matter
    torch.testing.assert_close(alone, together)


@pytest.mark.parametrize("method", ["score", "recalibrated"])
@pytest.mark.parametrize("recalibration", ["threshold", "weibull"])
def test_the_gradient_is_that_of_the_score(method: str, recalibration: Any) -> None:
    model = immunity(recalibration=recalibration, danger="own")
    model.calibrate(normal(300, DIMENSION, seed=3), tail=0.2, rejected=0.05, tail_samples=10)
    embeddings = normal(10, DIMENSION, seed=6).requires_grad_()
    (gradient,) = torch.autograd.grad(getattr(model, method)(embeddings).sum(), embeddings)
    along, step = normal(10, DIMENSION, seed=7), 1e-3
    with torch.no_grad():
        rise = getattr(model, method)(embeddings + step * along) - getattr(model, method)(embeddings - step * along)
    torch.testing.assert_close((gradient * along).sum(dim=1), rise / (2 * step), atol=2e-3, rtol=2e-2)


def test_thresholds_accept_by_the_predicted_class_and_recalibration_agrees() -> None:
    model, embeddings = immunity(), normal(3000, DIMENSION, seed=3)
    model.calibrate(embeddings, tail=0.2, rejected=0.05, tail_samples=10)
    assert not model.tails.pooled.any()
    fresh = normal(3000, DIMENSION, seed=13)
    assert torch.equal(model.accept(fresh), model.recalibrated(fresh) >= 0)
    for label in range(CLASSES):
        mine = model.classify(fresh) == label
        assert float(model.accept(fresh[mine]).double().mean()) == pytest.approx(0.95, abs=0.03)


def test_a_saved_immunity_is_the_same(tmp_path: Path) -> None:
    model, embeddings = immunity(lambda_inf=0.3, danger="own", recalibration="weibull"), normal(30, DIMENSION)
    model.calibrate(normal(300, DIMENSION, seed=3), tail=0.2, rejected=0.05, tail_samples=10)
    model.save(tmp_path / "model")
    loaded = Immunity.load(tmp_path / "model")
    for method in ("score", "recalibrated", "accept", "classify"):
        assert torch.equal(getattr(loaded, method)(embeddings), getattr(model, method)(embeddings))
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == ["immunity.json", "immunity.safetensors"]
    loaded.require(NAMES, DIMENSION)
    with pytest.raises(DataError, match="vaccinate the model for this data"):
        loaded.require(("ant", "bee", "dog"), DIMENSION)
    with pytest.raises(DataError, match="8 dimensions"):
        loaded.require(NAMES, 9)


@pytest.mark.parametrize("damage", ["missing", "no JSON", "no weights", "half", "other"])
def test_what_can_not_be_loaded_is_one_sentence(tmp_path: Path, damage: str) -> None:
    immunity().save(tmp_path)
    settings, weights = tmp_path / "immunity.json", tmp_path / "immunity.safetensors"
    if damage == "missing":
        settings.unlink()
    elif damage == "no JSON":
        settings.write_text("{")
    elif damage == "no weights":
        weights.unlink()
    elif damage == "half":
        weights.write_bytes(weights.read_bytes()[:200])
    else:
        settings.write_text(settings.read_text().replace('"dimension": 8', '"dimension": 9'))
    with pytest.raises(DataError, match="vaccinate again") as error:
        Immunity.load(tmp_path)
    assert "\n" not in str(error.value)


def test_trials_are_of_the_score_that_they_choose() -> None:
    """Images with label -1 are the unknown."""
    model, images = immunity(), normal(70, DIMENSION)
    labels = torch.arange(70) % 4 - 1
    found = trials(model, 0.5, 0.2, [0.0, 1.0], [0.0, 0.5], images, labels)
    assert {(trial.whitening, trial.margin) for trial in found} == {(0.5, 0.2)}
    assert [(trial.strength, trial.lambda_inf) for trial in found] == [(0, 0), (0, 0.5), (1, 0), (1, 0.5)]
    for trial in found:
        chosen = model.weakened(trial.strength)
        chosen.lambda_inf = trial.lambda_inf
        scores = chosen.score(images).detach()
        pairs = scores[labels >= 0][:, None] - scores[labels < 0][None]
        right = (chosen.classify(images) == labels)[labels >= 0].double().mean()
        assert trial.auroc == pytest.approx(float((pairs > 0).double().mean()), abs=1e-6)
        assert trial.accuracy == pytest.approx(float(right))


def test_strength_is_a_factor_of_what_the_adapter_adds() -> None:
    model, points = immunity(), units(6, 4)
    added = model.adapter.outward(F.gelu(model.adapter.inward(points)))
    torch.testing.assert_close(model.weakened(0.0).adapt(points), points)
    torch.testing.assert_close(model.weakened(0.3).adapt(points), F.normalize(points + 0.3 * added, dim=1))
    torch.testing.assert_close(model.weakened(1.0).adapt(points), model.adapt(points))


def test_the_best_trial_costs_no_accuracy() -> None:
    """Against the class texts; where all trials do worse than those, against the best of them."""
    cheap, dear, poor = (Trial(0.0, 0.2, 1.0, 1.0, *pair) for pair in ((0.8, 0.897), (0.9, 0.85), (0.7, 0.90)))
    assert best([poor, dear, cheap], zero_shot=0.90) == cheap
    assert best([poor, dear, cheap], zero_shot=0.95) == cheap
    assert best([poor, dear, cheap], zero_shot=0.85) == dear


def test_trials_of_folds_are_averaged_choice_by_choice() -> None:
    one, two = ([Trial(0.0, 0.2, 0.0, weight, auroc, 0.5) for weight in (0.1, 0.2)] for auroc in (0.6, 0.9))
    assert [(trial.lambda_inf, trial.auroc) for trial in mean([one, two])] == [(0.1, 0.75), (0.2, 0.75)]


def test_an_immunity_without_some_captions_scores_as_if_they_had_not_been_there() -> None:
    captions = [f"text {place % 4}" for place in range(ANTIBODIES)]
    whole, points = immunity(captions=captions), normal(9, DIMENSION)
    kept = [place for place in range(ANTIBODIES) if place % 4 in (0, 2)]
    fewer = immunity(antibodies=units(ANTIBODIES, 2)[kept], owners=OWNERS.clamp_max(2)[kept])
    left = whole.without({"text 1", "text 3"})
    torch.testing.assert_close(left.score(points), fewer.score(points))
    assert set(left.captions) == {"text 0", "text 2"}
    assert len(whole.antibodies) == ANTIBODIES
