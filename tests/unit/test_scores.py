"""What open-world scores promise: block sizes and batches do not matter, gradients are right, memory is bounded."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from open_worlds import CLASSES, TEXTS, WIDTH, DoubleHead, drawn, embeddings, hyperbolic, reference, settings
from safetensors.torch import save_file

from configs.errors import ConfigError, DataError
from configs.schema import scores as schema
from experiments.bench.memory import peak_bytes
from lightning_modules.heads import CosineHead
from lightning_modules.open_world import Negatives, Reference, Scores, mcm, needs_features, sweep
from lightning_modules.open_world.sweep import Softmax, Sweep

ADA = {"ada": schema.AdaNeg(bank="bank", groups=5)}


@pytest.mark.parametrize("temperature", [0.01, 0.5, 1.0])
def test_mcm_formula(temperature: float) -> None:
    cosines = torch.rand(20, 6, generator=torch.Generator().manual_seed(0)) * 2 - 1
    for row, score in zip(cosines.double().tolist(), mcm(cosines, temperature).tolist(), strict=True):
        exponentials = [math.exp(each / temperature) for each in row]
        assert score == pytest.approx(max(exponentials) / sum(exponentials), rel=1e-9)


def test_confident_samples_are_not_tied() -> None:
    """Float32 would round their softmax to 1."""
    classes, negatives = torch.eye(4, 8), torch.eye(8)[[5, 6]]
    world = Reference(CosineHead(100.0), classes, {"bank": Negatives(negatives, torch.tensor([-1, -1]))})
    chosen = {"msp": schema.MSP(), "neglabel": schema.NegLabel(bank="bank"), "mcm": schema.MCM(temperature=0.01)}
    batch = torch.zeros(2, 8)
    batch[:, 0] = 1.0
    batch[0, [1, 5]], batch[1, [1, 5]] = 0.70, 0.71
    for values in Scores(chosen, world)(batch).values():
        assert values[0] > values[1]
        assert values[0].float() == values[1].float() == 1.0


@pytest.mark.parametrize("groups", [(1,), (4,), (3, 7), (2, 6), (50,)])
@pytest.mark.parametrize("temperature", [0.01, 0.025, 1.0])
@pytest.mark.parametrize("head", [CosineHead(1.0), hyperbolic()], ids=["cosines", "ball"])
def test_blocks_do_not_matter(
    groups: tuple[int, ...],
    temperature: float,
    head: CosineHead,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nor does how many groups are summed at once, nor groups that no text has."""
    world = reference(head)
    images, points = head.images(embeddings()), world.banks["bank"].points
    similarities = head.similarities(images, points).double()
    asked = [Softmax(temperature, each) for each in groups]
    for block, rows in ((1, 1), (64, 4), (300, 1024), (2**20, 1024)):
        monkeypatch.setitem(sweep.BLOCK, "cpu", block)
        monkeypatch.setattr(sweep, "ROWS", rows)
        found = Sweep(head, asked)(images, points)
        torch.testing.assert_close(found.largest, similarities.amax(1).float())
        for each in asked:
            for group in range(min(each.groups, TEXTS)):
                whole = (similarities[:, group :: each.groups] / temperature).logsumexp(1)
                # Similarities are rounded to float32, and the temperature divides what is rounded off.
                torch.testing.assert_close(
                    found.logsumexp(each)[:, group].double(), whole, rtol=1e-5, atol=5e-7 / temperature
                )


def test_groups_far_below_the_nearest_text_are_exact() -> None:
    """At a temperature of 0.01 exp(-1 / 0.01) is no float32: a peak that all groups share would lose the others."""
    points = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [-0.6, 0.8]])
    images = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, -1.0]])
    found = Sweep(CosineHead(1.0), [Softmax(0.01, 4)])(images, points).logsumexp(Softmax(0.01, 4))
    torch.testing.assert_close(found, images @ points.T * 100)


@pytest.mark.parametrize("head", [CosineHead(20.0), hyperbolic()], ids=["cosines", "ball"])
def test_a_sample_does_not_depend_on_its_batch(head: CosineHead, tmp_path: Path) -> None:
    scores = Scores(settings(tmp_path, isinstance(head, CosineHead)), reference(head))
    whole = scores(embeddings())
    for name, values in whole.items():
        alone = torch.cat([scores(each[None])[name] for each in embeddings()])
        torch.testing.assert_close(alone, values, rtol=1e-5, atol=1e-9)
        torch.testing.assert_close(scores.one(name)(embeddings()), values, rtol=1e-6, atol=1e-9)


def test_ada_neg_depends_on_the_order_and_forgets() -> None:
    scores = Scores(ADA, reference(CosineHead(6.0)))
    first, second = embeddings(40).split(20)
    fresh = scores(second)["ada"]
    assert not torch.allclose(scores(second)["ada"], fresh, rtol=1e-3)
    scores.reset()
    scores(first)
    assert not torch.allclose(scores(second)["ada"], fresh, rtol=1e-3)
    scores.reset()
    assert torch.equal(scores(second)["ada"], fresh)


def test_gradients_by_finite_differences(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through recomputed blocks; `max` has a step, and is judged on its flat side by the test of the same name."""
    monkeypatch.setitem(sweep.BLOCK, "cpu", 20)
    world = reference(DoubleHead(5.0))
    distinct = drawn(9, CLASSES, WIDTH).double()  # a maximum over equal texts has no gradient
    bank = Negatives(world.banks["bank"].points.double(), world.banks["bank"].owners)
    classes, features = distinct / distinct.norm(dim=1, keepdim=True), world.features.double()
    world = replace(world, classes=classes, features=features, banks={"bank": bank})
    scores = Scores(settings(tmp_path), world)
    batch = drawn(10, 2, WIDTH).double().requires_grad_()
    for name in scores.scores:
        assert torch.autograd.gradcheck(scores.one(name), batch, rtol=1e-4, atol=1e-7), name


@pytest.mark.parametrize("grad", [False, True])
def test_the_similarities_of_everything_are_never_kept(grad: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    texts, count = 20_000, 64
    monkeypatch.setitem(sweep.BLOCK, "cpu", count * 500)
    world = reference(CosineHead(100.0), texts)
    chosen = {"neglabel": schema.NegLabel(bank="bank"), "eoe": schema.EOE(bank="bank")}
    scores, batch = Scores(chosen, world), embeddings(count).requires_grad_(grad)

    def run() -> None:
        total = sum(value.sum() for value in scores(batch).values())
        if grad:
            torch.autograd.grad(total, batch)

    assert peak_bytes(run, batch.device) < (0.75 if grad else 0.25) * texts * count * 4


def test_features_are_asked_for_where_they_are_needed(tmp_path: Path) -> None:
    chosen = settings(tmp_path)
    wanting = {name for name in chosen if needs_features({name: chosen[name]})}
    assert wanting == {"knn", "mahalanobis", "vim"}
    bare = replace(reference(CosineHead(20.0)), features=None, labels=None)
    for name in chosen:
        if name in wanting:
            with pytest.raises(ConfigError, match="needs embeddings of training images"):
                Scores({name: chosen[name]}, bare)
        else:
            Scores({name: chosen[name]}, bare)(embeddings())


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (schema.NegLabel(bank="bunk"), "the bank 'bunk'.*did you mean 'bank'"),
        (schema.EOE(bank="bunk"), "did you mean 'bank'"),
        (schema.KNN(k=100), "has k 100 and 60 training images; lower k"),
        (schema.ViM(dimension=8), "dimension 8 of 8, which leaves no residual"),
        (schema.SDis(), "needs a vaccinated model"),
    ],
)
def test_what_a_reference_lacks_is_a_sentence(setting: schema.Score, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Scores({"score": setting}, reference(CosineHead(20.0)))


@pytest.mark.parametrize("setting", [schema.ViM(), schema.AdaNeg(bank="bank")])
def test_what_is_defined_for_cosines_refuses_a_ball(setting: schema.Score) -> None:
    with pytest.raises(ConfigError, match=f"{setting.kind} is defined for cosines"):
        Scores({"score": setting}, reference(hyperbolic()))


def test_ada_neg_can_not_be_attacked_and_unknown_scores_are_named() -> None:
    scores = Scores(ADA | {"mcm": schema.MCM()}, reference(CosineHead(20.0)))
    with pytest.raises(ConfigError, match="'ada' is of kind ada_neg, which can't be attacked"):
        scores.one("ada")
    with pytest.raises(ConfigError, match="did you mean 'mcm'"):
        scores.one("mcn")


def test_clipn_refuses_files_of_something_else(tmp_path: Path) -> None:
    world, path = reference(CosineHead(20.0)), tmp_path / "no.safetensors"
    for content in (None, b"not tensors"):
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(DataError, match=r"no.safetensors with CLIPN's 'no' texts can't be read"):
            Scores({"clipn": schema.CLIPN(features=str(path))}, world)
    save_file({"no": torch.ones(3, WIDTH)}, path)
    with pytest.raises(DataError, match=r"for 4 classes, and holds \[\(3, 8\)\]"):
        Scores({"clipn": schema.CLIPN(features=str(path))}, world)


def test_a_bank_has_texts_and_owners() -> None:
    with pytest.raises(DataError, match="at least one text"):
        Negatives(torch.ones(0, 3), torch.ones(0, dtype=torch.int64))
    with pytest.raises(DataError, match=r"2 texts and owners of shape \(1,\)"):
        Negatives(torch.ones(2, 3), torch.ones(1, dtype=torch.int64))
