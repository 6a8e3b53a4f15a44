"""FAB-T against the published algorithm, written for one sample at a time in double precision."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from configs.errors import ConfigError
from lightning_modules.attacks import misclassified
from lightning_modules.attacks.fab import TargetedFAB
from lightning_modules.attacks.fab_untargeted import UntargetedFAB
from lightning_modules.attacks.hyperplane import shortest_move
from lightning_modules.attacks.losses import margin
from lightning_modules.attacks.walks import Samples
from tests.unit.fab_walks import NORMS, ORDER, RADIUS, attacked, ends, published, question, samples
from tests.unit.networks import convolutional, images, linear, seeds


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("classes", [3, 20])
def test_equals_the_published_algorithm(norm: str, classes: int) -> None:
    """Every target and every restart: the same ends of steps are adversarial, and at the same distance."""
    model, steps = convolutional(classes), 12
    method = TargetedFAB(norm, RADIUS[norm], steps, restarts=2, targets=2)
    compared = 0
    for trial in range(method.trials(classes)):
        given = samples(model, 4, trial)
        norms, _ = ends(method, model, given)
        ranking = given.outputs.argsort(dim=1, descending=True)
        starts = method.start(given)
        for row in range(4):
            one, aim = slice(row, row + 1), int(ranking[row, 1 + trial // 2])
            truth = published(model, given.clean[one], starts[one], int(given.target[row]), aim, norm, steps)
            assert norms[row] == pytest.approx(truth, rel=1e-4, abs=2e-7)  # pixels have a grain of 6e-8
            compared += len(truth)
    assert compared > method.trials(classes) * 4 * steps / 4


@pytest.mark.parametrize("norm", NORMS)
def test_fates_are_the_published_ones(norm: str) -> None:
    """Who falls: those with an adversarial end of a step within the radius, of any target class."""
    model, count, steps = convolutional(20), 10, 8
    given = samples(model, count)
    ranking = given.outputs.argsort(dim=1, descending=True)
    smallest = []
    for row in range(count):
        one, label = slice(row, row + 1), int(given.target[row])
        aims = ranking[row, 1:4].tolist()
        runs = [published(model, given.clean[one], given.clean[one], label, aim, norm, steps) for aim in aims]
        smallest.append(min([size for run in runs for size in run], default=float("inf")))
    sizes = sorted(smallest)
    eps = (sizes[4] + sizes[5]) / 2
    found = attacked(TargetedFAB(norm, eps, steps, targets=3), model, given)
    assert found.fallen.tolist() == [size <= eps for size in smallest]
    assert found.fallen.sum() == 5


@pytest.mark.parametrize("norm", NORMS)
def test_linear_model_gives_the_distance_to_the_hyperplane(norm: str) -> None:
    """There the first step goes beyond the boundary by 5 % of the distance, and every end lies beyond it."""
    model = linear(2)
    clean, row = images(6, low=0.4, high=0.6), torch.arange(6)
    outputs = model(clean).detach()
    given = Samples(row, clean, outputs.argmax(1), outputs, seeds(6), torch.zeros_like(row))
    weight = model.network[1].weight.detach()
    difference = (weight[1] - weight[0]).abs()
    dual = {"linf": difference.sum(), "l2": difference.norm(), "l1": difference.max()}[norm]
    distance = (outputs[:, 1] - outputs[:, 0]).abs() / dual
    norms, questions = ends(TargetedFAB(norm, 1.0, 20), model, given)
    if norm != "l1":  # a single coordinate of highest slope may not have the room
        assert [each[0] for each in norms] == pytest.approx((1.05 * distance).tolist(), rel=1e-4)
    assert all(min(each) >= float(far) for each, far in zip(norms, distance, strict=True))
    assert [min(each) for each in norms] == pytest.approx([each[0] / 1.05 for each in norms], rel=0.05)
    assert questions == [20 + len(each) for each in norms]  # every step, and every way back


def ball(pixels: Tensor) -> Tensor:
    """Class 0 outside of a ball of radius 1 around grey, class 1 within: a linearisation falls short of the ball."""
    squared = (pixels.double() - 0.5).square().flatten(1).sum(1)
    return torch.stack([squared, torch.ones_like(squared)], dim=1)


def test_the_smallest_end_is_at_the_distance_to_a_curved_boundary() -> None:
    given = samples(ball, 4)
    norms, _ = ends(TargetedFAB("l2", 9.0, 60), ball, given)
    distance = given.outputs[:, 0].sqrt() - 1.0
    assert (distance > 1).all()
    assert [min(each) for each in norms] == pytest.approx(distance.tolist(), rel=2e-3)
    assert all(min(each) >= float(far) - 1e-5 for each, far in zip(norms, distance, strict=True))


def test_a_step_is_checked_without_a_gradient_and_retraced_where_it_succeeded() -> None:
    steps = 12
    method, given = TargetedFAB("l2", 9.0, steps), samples(ball, 4)
    walks, retraced = method.begin(given), 0
    for number in range(method.queries):
        assert not method.over(walks).any()
        answer, before = question(method, ball, walks), walks.pixels
        assert (answer.gradient is None) == (number % 2 == 1) == bool(walks.stepped.all())
        adverse = walks.stepped & misclassified(answer.outputs, walks.target)
        method.advance(walks, answer)
        if answer.gradient is None:
            expected = torch.where(adverse.view(-1, 1, 1, 1), 0.9 * before + 0.1 * walks.clean, before)
            torch.testing.assert_close(walks.pixels, expected, rtol=0, atol=1e-6)
            retraced += int(adverse.sum())
    assert method.over(walks).all()
    assert 0 < retraced <= 4 * steps


def test_what_is_over_stays_as_it_is() -> None:
    model, method = convolutional(20), TargetedFAB("l2", 0.08, 3)
    walks = method.begin(samples(model, 6))
    for _ in range(method.queries):
        method.advance(walks, question(method, model, walks))
    assert method.over(walks).all()
    pixels, best, inside = walks.pixels.clone(), walks.best.clone(), method.inside(walks)
    for _ in range(5):
        method.advance(walks, question(method, model, walks))
    assert torch.equal(walks.pixels, pixels)
    assert torch.equal(walks.best, best)
    assert torch.equal(method.inside(walks), inside)
    assert method.over(walks).all()


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("classes", [3, 20])
def test_untargeted_goes_to_the_nearest_of_all_boundaries(norm: str, classes: int) -> None:
    """On a linear model every step is towards the class whose boundary is nearest, found one by one with autograd."""
    model, given = linear(classes), samples(linear(classes), 6)
    method = UntargetedFAB(norm, 9.0, 1)
    walks = method.begin(given)
    start = walks.pixels
    method.advance(walks, question(method, model, walks))
    for row in range(6):
        moves = []
        for aim in set(range(classes)) - {int(given.target[row])}:
            point = start[row : row + 1].clone().requires_grad_()
            logits = model(point)
            height = logits[0, aim] - logits[0, int(given.target[row])]
            normal = torch.autograd.grad(height, point)[0].flatten(1)
            move = shortest_move(point.detach().flatten(1), normal.float(), height.detach().float()[None], norm)
            steep = torch.linalg.vector_norm(normal, {"linf": 1, "l2": 2, "l1": float("inf")}[norm])
            moves.append((float(height.abs() / steep), 1.05 * move.view_as(point)))
        nearest = min(moves, key=lambda pair: pair[0])[1]
        torch.testing.assert_close(walks.pixels[row], (start[row] + nearest[0]).clamp(0, 1), rtol=0, atol=1e-4)


@pytest.mark.parametrize("norm", NORMS)
def test_trials_are_targets_times_restarts(norm: str) -> None:
    """Restart 0 starts at the clean image, the others half a radius away and each elsewhere."""
    model = convolutional(5)
    method = TargetedFAB(norm, 0.05, 3, restarts=3, targets=9)
    assert method.trials(5) == 12
    starts, aims = [], []
    for trial in range(12):
        given = samples(model, 4, trial)
        walks = method.begin(given)
        distance = (walks.pixels - given.clean).flatten(1).norm(ORDER[norm], dim=1)
        expected = 0.0 if trial % 3 == 0 else 0.025
        assert distance.tolist() == pytest.approx([expected] * 4, rel=1e-4)
        starts.append(walks.pixels)
        aims.append(walks.aim)
    ranking = given.outputs.argsort(dim=1, descending=True)
    assert torch.equal(torch.stack(aims[::3], 1), ranking[:, 1:])
    assert all(torch.equal(aims[trial], aims[trial - trial % 3]) for trial in range(12))
    random = [start for trial, start in enumerate(starts) if trial % 3]
    assert len({tuple(start.flatten().tolist()) for start in random}) == 8


def test_only_ends_of_steps_and_the_clean_image_count() -> None:
    model = convolutional(5)
    method = TargetedFAB("linf", 0.5, 3, restarts=2)
    walks = method.begin(samples(model, 4, trial=1))
    assert not method.inside(walks).any()  # a random start
    walks = method.begin(samples(model, 4, trial=0))
    assert method.inside(walks).all()  # the clean image
    method.advance(walks, question(method, model, walks))
    assert method.inside(walks).all()  # ends of steps
    far = replace(method, eps=1e-4)
    assert not far.inside(walks).any()
    lost = replace(walks, target=(walks.target + 1) % 5)  # wherever the walk is, it is adversarial
    method.advance(lost, question(method, model, lost))
    assert not method.inside(lost).any()  # on the way back


def test_a_misclassified_clean_image_falls_as_it_is() -> None:
    model = convolutional(5)
    given = samples(model, 6)
    wrong = replace(given, target=(given.target + 1) % 5)
    found = attacked(TargetedFAB("l2", 1e-3, 3), model, wrong)
    assert found.fallen.all()
    assert torch.equal(found.pixels, given.clean)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.float16])
def test_the_fallen_keep_the_budget(norm: str, kind: torch.dtype) -> None:
    network = convolutional(20)

    def model(pixels: Tensor) -> Tensor:
        return network(pixels).to(kind)

    given = samples(model, 12)
    found = attacked(TargetedFAB(norm, RADIUS[norm], 8, restarts=2, targets=3), model, given, slots=5)
    distance = (found.pixels - given.clean).double().flatten(1).norm(ORDER[norm], dim=1)
    assert (distance <= RADIUS[norm] * (1 + 1e-6)).all()
    assert ((found.pixels >= 0) & (found.pixels <= 1)).all()
    assert torch.equal(misclassified(model(found.pixels), given.target), found.fallen)
    assert 0 < found.fallen.sum() < 12


@pytest.mark.parametrize("norm", NORMS)
def test_slots_change_no_fate(norm: str) -> None:
    model = convolutional(20)
    given = samples(model, 12)
    method = TargetedFAB(norm, RADIUS[norm], 6, restarts=2, targets=2)
    whole = attacked(method, model, given)
    assert 0 < whole.fallen.sum() < 12
    for slots in (1, 5):
        found = attacked(method, model, given, slots)
        assert torch.equal(found.fallen, whole.fallen)
        torch.testing.assert_close(found.pixels, whole.pixels, rtol=0, atol=1e-5)


def test_more_targets_restarts_and_steps_fell_no_fewer() -> None:
    model = convolutional(20)
    given = samples(model, 24)
    base = TargetedFAB("linf", RADIUS["linf"], 4, targets=1)
    fates = attacked(base, model, given).fallen
    assert 0 < fates.sum() < 24
    for more in (replace(base, targets=4), replace(base, restarts=3), replace(base, steps=10)):
        assert (attacked(more, model, given).fallen | ~fates).all()


def test_without_a_judge_the_most_misclassified_pixels_of_the_budget_come_back() -> None:
    model = convolutional(20)
    given, eps = samples(model, 8), 2 * RADIUS["linf"]
    judged = attacked(TargetedFAB("linf", eps, 6, targets=3), model, given)
    found = attacked(TargetedFAB("linf", eps, 6, targets=3), model, given, judged=False)
    reached, clean = (margin(model(pixels), given.target) for pixels in (found.pixels, given.clean))
    assert ((found.pixels - given.clean).abs() <= eps + 1e-7).all()
    assert (reached >= clean).all()
    assert torch.equal(reached > 0, judged.fallen)
    assert (reached > 0).any()


def test_a_model_without_slope_or_numbers_leaves_the_pixels_sound() -> None:
    def flat(pixels: Tensor) -> Tensor:
        return 0.0 * pixels.flatten(1)[:, :4] + torch.tensor([3.0, 2.0, 1.0, 0.0])

    found = attacked(TargetedFAB("l2", 0.5, 4), flat, samples(flat, 3))
    assert not found.fallen.any()
    assert found.zero_gradient.tolist() == [1.0] * 3
    torch.testing.assert_close(found.pixels, samples(flat, 3).clean)

    def broken(pixels: Tensor) -> Tensor:
        return flat(pixels) + torch.where(pixels.flatten(1).mean(1, keepdim=True) > 0, float("nan"), 0.0)

    found = attacked(TargetedFAB("l2", 0.5, 4), broken, samples(flat, 3))
    assert found.broken.all()
    assert found.pixels.isfinite().all()


def test_one_class_has_no_boundary() -> None:
    model = linear(1)
    with pytest.raises(ConfigError, match="at least 2"):
        attacked(TargetedFAB("l2", 0.5, 4), model, samples(model, 3))
