"""The superclass matrix against plain computations, on a linear model whose superclasses are means of their leaves."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from configs.errors import ConfigError, DataError, FieldError
from configs.schema import attack as schema
from configs.schema.superclass import SuperclassEvaluation as SuperclassConfig
from experiments.results import IDENTITY, MEASURED
from lightning_modules import attacks
from lightning_modules.attacks import LOSSES, misclassified, noise
from lightning_modules.heads import CosineHead, Entry, Head, HyperbolicHead
from lightning_modules.hierarchy import Forest, Tree
from lightning_modules.metrics import TreeErrors
from lightning_modules.probes import Row, Terms
from lightning_modules.superclass import SuperclassEvaluation

LEAVES = tuple("abcdef")
FOREST = Forest(
    LEAVES,
    (
        Tree("pairs", (LEAVES, ("ab", "cd", "ef"), ("abcd", "ef")), ((0, 0, 1, 1, 2, 2), (0, 0, 1))),
        Tree("halves", (LEAVES, ("ace", "bdf"), ("abcdef",)), ((0, 1, 0, 1, 0, 1), (0, 0))),
    ),
)
COUNT, DIMENSIONS = 40, 12
PGD = schema.PGD(eps_255=6, step_255=3, steps=4, loss="ce")
TERMS = Terms(seed=3, slots=8)


class Toy(nn.Module):
    """Pixels (B, 3, 4, 4) through a matrix; a caption is the mean of its letters' vectors."""

    def __init__(self, head: Head | None = None) -> None:
        super().__init__()
        self.head = head or CosineHead(8.0)
        generator = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(48, DIMENSIONS, generator=generator))
        self.letters = torch.randn(len(LEAVES), DIMENSIONS, generator=generator)
        self.asked: list[int] = []
        self.captions: list[str] = []

    def embed_image(self, pixels: Tensor) -> Tensor:
        self.asked.append(len(pixels))
        return (pixels.flatten(1) - 0.5) @ self.weight

    def embed_text(self, texts: Sequence[str]) -> Tensor:
        self.captions += texts
        return torch.stack([self.letters[[LEAVES.index(letter) for letter in text]].mean(0) for text in texts])


class Blind(Toy):
    """Has no answer."""

    def embed_image(self, pixels: Tensor) -> Tensor:
        return super().embed_image(pixels) * float("nan")


def head(kind: str) -> Head:
    entries = Entry(-2.0, 1.0, 1.0), Entry(-2.0, 1.0, 1.0)
    return CosineHead(8.0) if kind == "cosine" else HyperbolicHead(1.0, *entries, 2.0)


def batch() -> dict[str, Tensor]:
    """Images whose labels are the model's leaves but for each fifth, at places 7, 8, ... of their split."""
    images = torch.rand(COUNT, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    model = Toy()
    found = CosineHead(8.0)
    with torch.no_grad():
        points = found.images(model.embed_image(images))
        labels = found.logits(points, found.texts(model.embed_text(LEAVES)[:, None])).argmax(1)
    labels[::5] = (labels[::5] + 1) % len(LEAVES)
    index, valid = torch.arange(7, 7 + COUNT), torch.ones(COUNT, dtype=torch.bool)
    return {"image": images, "label": labels, "index": index, "valid": valid}


def module(settings: Mapping[str, schema.Attack], model: Toy | None = None, **changed: Any) -> SuperclassEvaluation:
    arguments = {
        "forest": FOREST,
        "templates": ["{c}", "{c}{c}"],
        "settings": settings,
        "split": "test",
        "samples": COUNT,
        "terms": TERMS,
    }
    return SuperclassEvaluation(model or Toy(), **(arguments | changed))  # type: ignore[arg-type]


def rows(evaluation: SuperclassEvaluation, batches: Sequence[dict[str, Tensor]]) -> list[Row]:
    evaluation.on_test_start()
    for number, each in enumerate(batches):
        evaluation.test_step(each, number)
    return evaluation.rows()


def values(found: Sequence[Row], **wanted: object) -> dict[tuple[str | None, int | None], float]:
    """Tree and level -> value."""
    chosen = [row for row in found if all(row[name] == value for name, value in wanted.items())]
    return {(row["tree"], row["level"]): row["value"] for row in chosen}


def place(level: Any) -> str:
    return "leaf" if level.tree is None else f"{level.tree}.{level.number}"


@pytest.mark.parametrize("kind", ["cosine", "hyperbolic"])
def test_every_cell_equals_a_plain_computation(kind: str) -> None:
    """With the head that is reported under attack as well."""
    given, judge, model = batch(), head(kind), Toy()
    texts = judge.texts(torch.stack([model.embed_text(FOREST.names)] * 2, dim=1))
    images, labels = given["image"], given["label"]

    def logits(pixels: Tensor, nodes: slice) -> Tensor:
        return judge.logits(judge.images(model.embed_image(pixels)), texts[nodes])

    def right(pixels: Tensor) -> tuple[dict[Any, Tensor], dict[Any, Tensor], Tensor]:
        with torch.no_grad():
            answers = [logits(pixels, level.nodes).argmax(1) for level in FOREST.levels]
        truths = [torch.tensor([level.ancestors[label] for label in labels]) for level in FOREST.levels]
        above = [torch.tensor([level.ancestors[leaf] for leaf in answers[0]]) for level in FOREST.levels]
        keys = [(level.tree, level.number) for level in FOREST.levels]
        by_prompt = {key: answer == truth for key, answer, truth in zip(keys, answers, truths, strict=True)}
        return by_prompt, {k: leaf == truth for k, leaf, truth in zip(keys, above, truths, strict=True)}, answers[0]

    found = rows(module({"pgd": PGD}, Toy(judge)), [given])
    clean = right(images)
    attack = attacks.build(PGD)
    assert attack is not None
    seeds = noise.derive(TERMS.seed, 0, given["index"])
    diagonal = []
    for level in FOREST.levels:
        truth = torch.tensor([level.ancestors[label] for label in labels])
        made = attack(lambda pixels, level=level: logits(pixels, level.nodes), images, truth, LOSSES["ce"], seeds)  # type: ignore[misc]
        after = right(made.pixels)
        name = f"pgd>{place(level)}"
        for number, metric in enumerate(("level_accuracy", "accuracy")):
            expected = {key: (clean[number][key] & after[number][key]).double().mean().item() for key in clean[number]}
            assert values(found, attack_name=name, metric=metric) == pytest.approx(expected)
        diagonal.append(values(found, attack_name=name, metric="level_accuracy")[level.tree, level.number])
        errors = TreeErrors(FOREST.trees[0])
        errors.update(after[2], labels, given["valid"])
        wanted = errors.compute()
        for metric in ("tree_induced_error", "lca_height", "hierarchical_precision", "hierarchical_recall"):
            assert values(found, attack_name=name, metric=metric)["pairs", None] == pytest.approx(wanted[metric].item())
    unharmed = values(found, attack_name="superclass", metric="level_accuracy")
    assert unharmed == pytest.approx({key: each.double().mean().item() for key, each in clean[0].items()})
    assert min(diagonal) < min(unharmed.values())
    means = values(found, metric="mean_level_robust_accuracy")
    assert means[None, None] == pytest.approx(sum(diagonal) / 4)
    assert means["pairs", None] == pytest.approx(sum(diagonal[:3]) / 3)
    assert means["halves", None] == pytest.approx((diagonal[0] + diagonal[3]) / 2)


def test_the_adversary_that_aims_at_a_level_hurts_it_most() -> None:
    found = rows(module({"pgd": PGD}), [batch()])
    for level in FOREST.levels:
        key = (level.tree, level.number)
        left = [values(found, attack_name=f"pgd>{place(aim)}", metric="level_accuracy")[key] for aim in FOREST.levels]
        assert left[FOREST.levels.index(level)] == min(left)


def test_batches_padding_and_order_change_no_figure() -> None:
    """Nor does it matter that a whole batch is padding, as on a rank that has fewer samples."""
    given = batch()
    settings = {"pgd": PGD, "listed": schema.AutoAttack(version="custom", attacks=["apgd-ce"], eps_255=4, steps=3)}
    parts = [{name: value[rows] for name, value in given.items()} for rows in torch.randperm(COUNT).split(9)]
    for part in parts[1:]:
        padding = {name: value[:4].clone() for name, value in given.items()} | {"valid": torch.zeros(4).bool()}
        padding["label"] = padding["label"].fill_(-1)
        part.update({name: torch.cat([value, padding[name]]) for name, value in part.items()})
    nothing = {**given, "valid": torch.zeros(COUNT).bool(), "label": torch.full((COUNT,), -1)}
    together, apart = rows(module(settings), [given]), rows(module(settings), [*parts, nothing])
    assert [row["value"] for row in apart] == pytest.approx([row["value"] for row in together])
    assert [{**row, "value": 0, "checks": {}} for row in apart] == [
        {**row, "value": 0, "checks": {}} for row in together
    ]


def test_texts_are_encoded_once_and_an_image_is_looked_at_once_for_all_levels() -> None:
    model = Toy()
    evaluation = module({"pgd": PGD}, model)
    rows(evaluation, [batch()])
    assert len(model.captions) == FOREST.size * 2
    levels = len(FOREST.levels)
    assert sum(model.asked) == COUNT * (1 + levels * (PGD.steps + 1))
    assert model.weight.grad is None


def test_a_sequence_stops_at_the_level_that_it_aims_at_and_tells_what_stood_in() -> None:
    setting = schema.AutoAttack(version="custom", attacks=["apgd-ce", "apgd-t"], eps_255=6, steps=5, targets=2)
    given, model = batch(), Toy()
    found = rows(module({"aa": setting}), [given])
    attack = attacks.build(setting)
    assert attack is not None
    judge = CosineHead(8.0)
    texts = judge.texts(model.embed_text(FOREST.names)[:, None])
    for level in FOREST.levels:
        truth = torch.tensor(level.ancestors)[given["label"]]
        logits = lambda pixels, nodes=level.nodes: judge.logits(judge.images(model.embed_image(pixels)), texts[nodes])  # noqa: E731
        seeds = noise.derive(TERMS.seed, 0, given["index"])
        made = attack(logits, given["image"], truth, LOSSES["ce"], seeds, misclassified)
        with torch.no_grad():
            fell = misclassified(logits(given["image"]), truth) | misclassified(logits(made.pixels), truth)
        left = values(found, attack_name=f"aa>{place(level)}", metric="level_accuracy")[level.tree, level.number]
        assert left == pytest.approx(1 - fell.double().mean().item())
        (row,) = [
            row
            for row in found
            if row["metric"] == "accuracy" and row["level"] == 0 and row["attack_name"] == f"aa>{place(level)}"
        ]
        assert ("fallbacks" in row["checks"]) == (level.size < 4)
        assert row["checks"]["attacked"] == COUNT


def test_a_model_without_an_answer_is_right_at_no_level() -> None:
    found = rows(module({"pgd": PGD}, Blind()), [batch()])
    for metric in ("level_accuracy", "accuracy", "hierarchical_recall", "consistency", "mean_level_robust_accuracy"):
        assert set(values(found, metric=metric).values()) == {0.0}
    assert not values(found, metric="hierarchical_precision")  # of nothing
    assert all(math.isfinite(row["value"]) for row in found)
    assert {row["checks"]["broken"] for row in found if row["metric"] == "level_accuracy" and row["attack"]} == {COUNT}


def test_rows_are_whole_and_no_two_of_them_are_of_the_same_thing() -> None:
    found = rows(module({"pgd": PGD, "other": PGD}), [batch()])
    whole = [{**row, "dataset": "toy", "stage": "before", "seed": 0} for row in found]
    assert all(column in row for row in whole for column in (*IDENTITY, *MEASURED))
    identities = {json.dumps([row[column] for column in IDENTITY], sort_keys=True) for row in whole}
    assert len(identities) == len(found)
    levels = len(FOREST.levels)
    assert len([row for row in found if row["metric"] == "level_accuracy"]) == levels * (1 + 2 * levels)
    (aimed,) = {json.dumps(row["attack"]) for row in found if row["attack_name"] == "pgd>pairs.2"}
    assert json.loads(aimed)["aim"] == {"tree": "pairs", "level": 2}
    mistakes = [row for row in found if row["metric"] == "lca_height"]
    assert all(0 < row["n"] <= COUNT for row in mistakes)


def test_without_an_attack_clean_images_are_measured() -> None:
    found = rows(module({}), [batch()])
    assert {row["attack_name"] for row in found} == {"superclass"}
    assert values(found, metric="mean_level_accuracy")[None, None] > 0.5


def test_a_forest_without_superclasses_is_refused() -> None:
    with pytest.raises(ConfigError, match="needs a class hierarchy"):
        module({}, forest=Forest(LEAVES))
    one = Tree("one", (LEAVES, ("all",)), ((0,) * 6,))
    with pytest.raises(ConfigError, match="tree 'one' has no level of two or more classes"):
        module({}, forest=Forest(LEAVES, (FOREST.trees[0], one)))


def test_samples_that_lack_are_an_error() -> None:
    with pytest.raises(DataError, match="saw 40 samples of 41"):
        rows(module({}, samples=COUNT + 1), [batch()])


def test_an_attack_of_kind_none_is_refused() -> None:
    with pytest.raises(FieldError, match="'idle' of kind none"):
        SuperclassConfig(attacks={"idle": schema.NoAttack()})
