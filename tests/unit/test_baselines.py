"""Published objectives against loops over images and classes in double precision, and whom their gradients reach."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from configs.errors import DataError, FieldError
from configs.schema import objective as schema
from configs.schema.attack import PGD
from configs.schema.model import ModelConfig
from configs.schema.module import OptimConfig
from lightning_modules.backbones import load_backbone
from lightning_modules.heads import CosineHead
from lightning_modules.hierarchy import Forest
from lightning_modules.objectives import Embedded, Objective, Views, build, wordings
from lightning_modules.robust_finetuning import RobustFinetuning

CLASSES = ("fox", "cat", "bus")
LABELS = torch.tensor([0, 2, 1, 2])
SCALE = 9.0
SIDE, SIZE, DIMENSIONS = 3, 6, 5
DESCRIPTIONS = {"bus": ["a long box", "on wheels"], "fox": ["red fur", "a tail"], "cat": ["a soft one", "whiskers"]}


def drawn(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def texts(count: int = len(CLASSES)) -> Tensor:
    return torch.nn.functional.normalize(drawn(count, DIMENSIONS, seed=9), dim=1)


def embedded(seed: int) -> Embedded:
    pooled, tokens = drawn(4, DIMENSIONS, seed=seed) * 3, drawn(4, SIDE * SIDE, DIMENSIONS, seed=seed + 10) * 2
    return Embedded(pooled.requires_grad_(), tokens.requires_grad_())


@pytest.fixture
def views() -> Views:
    return Views(embedded(1), embedded(2), embedded(3), embedded(4))


def made(config: schema.Objective) -> Objective:
    return build(config, CosineHead(SCALE), Forest(CLASSES), torch.device("cpu"))


def reached(loss: Tensor, views: Views) -> set[str]:
    """Which embeddings of which views a loss has a gradient for."""
    loss.backward()
    parts = {
        f"{name}.{part}": value for name, view in views._asdict().items() for part, value in view._asdict().items()
    }
    return {name for name, value in parts.items() if value.grad is not None and bool(value.grad.any())}


# The loops: lists of floats alone.


def logits(image: Sequence[float], classes: Tensor, scale: float = SCALE) -> list[float]:
    length = math.sqrt(sum(x * x for x in image))
    return [scale * sum(x * y for x, y in zip(image, text, strict=True)) / length for text in classes.tolist()]


def shares(values: Sequence[float]) -> list[float]:
    return [math.exp(value) / sum(map(math.exp, values)) for value in values]


def kl(target: Sequence[float], values: Sequence[float]) -> float:
    return sum(p * math.log(p / q) for p, q in zip(shares(target), shares(values), strict=True))


def answers(view: Embedded | None, scale: float = SCALE) -> list[list[float]]:
    assert view is not None
    return [logits(image, texts(), scale) for image in view.pooled.tolist()]


def mean_loss(rows: Sequence[Sequence[float]]) -> float:
    return sum(-math.log(shares(row)[label]) for row, label in zip(rows, LABELS.tolist(), strict=True)) / len(rows)


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def attention_by_hand(view: Embedded, classes: Tensor, normalise: str) -> list[list[float]]:
    """classes (4, M, D), the texts of each image's class -> maps of SIZE * SIZE."""
    assert view.tokens is not None
    found = []
    for pooled, tokens, own in zip(view.pooled.tolist(), view.tokens.tolist(), classes.tolist(), strict=True):
        everything = [pooled, *tokens]
        over_tokens = [math.sqrt(sum(row[d] ** 2 for row in everything)) for d in range(DIMENSIONS)]
        products = []
        for token in tokens:
            over_features = [math.sqrt(sum(x * x for x in token))] * DIMENSIONS
            length = over_tokens if normalise == "tokens" else over_features
            unit = [x / y for x, y in zip(token, length, strict=True)]
            products.append(mean([sum(x * y for x, y in zip(unit, text, strict=True)) for text in own]))
        low, high = min(products), max(products)
        found.append(enlarged([(value - low) / (high - low) for value in products]))
    return found


def enlarged(small: Sequence[float]) -> list[float]:
    """Bilinear, with pixels as areas."""

    def neighbours(place: int) -> list[tuple[int, float]]:
        at = max((place + 0.5) * SIDE / SIZE - 0.5, 0)
        first = int(at)
        return [(first, 1 - at + first), (min(first + 1, SIDE - 1), at - first)]

    return [
        sum(small[i * SIDE + j] * a * b for i, a in neighbours(y) for j, b in neighbours(x))
        for y in range(SIZE)
        for x in range(SIZE)
    ]


def mean_distance(maps: list[list[float]], others: list[list[float]]) -> float:
    return mean([math.dist(one, other) for one, other in zip(maps, others, strict=True)])


# PMG-AFT


@pytest.mark.parametrize(("temperature", "scale"), [(None, SCALE), (0.5, 2.0), (1.0, 1.0)])
def test_pmg_aft(temperature: float | None, scale: float, views: Views) -> None:
    objective = made(schema.PMGAFT(reference_weight=0.7, clean_weight=0.3, temperature=temperature))
    loss, parts = objective.outer(views, LABELS, texts())
    adversarial, clean, original = (answers(view, scale) for view in (views[0], views[1], views[3]))
    expected = {
        "adversarial": mean_loss(adversarial),
        "reference": 0.7 * mean([kl(p, q) for p, q in zip(original, adversarial, strict=True)]),
        "clean": 0.3 * mean([kl(p, q) for p, q in zip(clean, adversarial, strict=True)]),
    }
    assert {name: part.item() for name, part in parts.items()} == pytest.approx(expected, rel=1e-5)
    assert loss.item() == pytest.approx(sum(expected.values()), rel=1e-5)
    inner = objective.inner(views.adversarial.pooled, objective.target(LABELS, None, None, texts()), texts())
    assert inner.mean().item() == pytest.approx(expected["adversarial"], rel=1e-5)


def test_pmg_aft_trains_the_clean_answers_too_and_asks_for_no_more_than_it_uses(views: Views) -> None:
    objective = made(schema.PMGAFT())
    assert (objective.needs.clean, objective.needs.reference, objective.needs.reference_adversarial) == (1, 0, 1)
    reference = views.reference_adversarial
    assert reference is not None
    views = views._replace(reference_adversarial=Embedded(reference.pooled.detach()))
    assert reached(objective.outer(views, LABELS, texts())[0], views._replace(reference_adversarial=embedded(4))) == {
        "adversarial.pooled", "clean.pooled",
    }  # fmt: skip
    alone = made(schema.PMGAFT(reference_weight=0, clean_weight=0))
    assert (alone.needs.clean, alone.needs.reference_adversarial) == (False, False)
    same, expected = (
        each.outer(Views(views.adversarial), LABELS, texts())[0] for each in (alone, made(schema.TeCoA()))
    )
    torch.testing.assert_close(same, expected)


# AGFT


def test_agft(views: Views) -> None:
    objective = made(schema.AGFT(scale=1.5, softness=0.25))
    loss, _ = objective.outer(views, LABELS.roll(1), texts())
    soft = [shares([0.25 * value for value in row]) for row in answers(views.reference, 1.5 * SCALE)]
    losses = [
        -sum(p * math.log(q) for p, q in zip(wanted, shares(row), strict=True))
        for wanted, row in zip(soft, answers(views.adversarial, 1.5 * SCALE), strict=True)
    ]
    assert loss.item() == pytest.approx(mean(losses), rel=1e-5)
    assert views.reference is not None
    target = objective.target(LABELS, None, views.reference.pooled, texts())
    assert target.tolist() == [pytest.approx(each, rel=1e-4) for each in soft]
    assert objective.inner(views.adversarial.pooled, target, texts()).tolist() == pytest.approx(losses, rel=1e-5)
    assert objective.needs == made(schema.FARE()).needs


# TRADES


def test_trades(views: Views) -> None:
    objective = made(schema.TRADES(weight=2.5))
    loss, parts = objective.outer(views, LABELS, texts())
    adversarial, clean = answers(views.adversarial), answers(views.clean)
    apart = [kl(p, q) for p, q in zip(clean, adversarial, strict=True)]
    assert loss.item() == pytest.approx(mean_loss(clean) + 2.5 * mean(apart), rel=1e-5)
    assert parts["adversarial"].item() == pytest.approx(2.5 * mean(apart), rel=1e-5)
    assert views.clean is not None
    target = objective.target(LABELS, views.clean.pooled.detach(), None, texts())
    inner = objective.inner(views.adversarial.pooled, target, texts())
    assert inner.tolist() == pytest.approx(apart, rel=1e-4)
    assert objective.inner(views.clean.pooled, target, texts()).tolist() == pytest.approx([0] * 4, abs=1e-6)
    assert reached(loss, views) == {"adversarial.pooled", "clean.pooled"}


# attention


@pytest.mark.parametrize("normalise", ["features", "tokens"])
def test_tga_zsr(normalise: Any, views: Views) -> None:
    attention = schema.Attention(adversarial_weight=0.6, clean_weight=0.2, normalise=normalise, map_size=SIZE)
    objective = made(schema.TGAZSR(attention=attention))
    assert (objective.needs.clean, objective.needs.reference, objective.needs.tokens) == (True, True, True)
    loss, parts = objective.outer(views, LABELS, texts())
    own = texts()[LABELS][:, None]
    adversarial, clean, original = (attention_by_hand(view, own, normalise) for view in views[:3] if view is not None)
    expected = {
        "adversarial": mean_loss(answers(views.adversarial)),
        "attention_adversarial": 0.6 * mean_distance(adversarial, original),
        "attention_clean": 0.2 * mean_distance(clean, original),
    }
    assert {name: part.item() for name, part in parts.items()} == pytest.approx(expected, rel=1e-4)
    assert loss.item() == pytest.approx(sum(expected.values()), rel=1e-4)


def test_attention_starts_where_it_is_to_stay_with_a_finite_gradient(views: Views) -> None:
    """Before the first step the trained model is the original, and a picture of one colour has equal tokens."""
    plain = Embedded(views.adversarial.pooled, drawn(4, 1, DIMENSIONS, seed=5).repeat(1, 9, 1).requires_grad_())
    for same in (views.adversarial, plain):
        assert same.tokens is not None
        start = Views(same, same, Embedded(same.pooled.detach(), same.tokens.detach()))
        loss, parts = made(schema.TGAZSR()).outer(start, LABELS, texts())
        assert (parts["attention_adversarial"].item(), parts["attention_clean"].item()) == (0, 0)
        loss.backward()
        assert same.tokens.grad is not None
        assert not same.tokens.grad.any()


# SAFT


def described(tmp_path: Path, **changes: Any) -> schema.SAFT:
    path = tmp_path / "descriptions.yaml"
    path.write_text("\n".join(f"{name}: {lines}" for name, lines in (DESCRIPTIONS | changes).items()), "utf-8")
    return schema.SAFT(descriptions=str(path), attention=schema.Attention(map_size=SIZE))


@pytest.mark.parametrize("ensemble", ["similarities", "losses"])
def test_saft(ensemble: Any, views: Views) -> None:
    objective = made(schema.SAFT("saft", "nowhere", ensemble, schema.Attention(map_size=SIZE)))
    points = texts(3 + 3 * 2)
    groups = points[3:].unflatten(0, (3, 2))
    loss, parts = objective.outer(views, LABELS, points)
    rows = [[logits(image, groups[:, m]) for m in range(2)] for image in views.adversarial.pooled.tolist()]
    averaged = [[mean(pair) for pair in zip(*both, strict=True)] for both in rows]
    each = [mean_loss([both[m] for both in rows]) for m in range(2)]
    expected = {"similarities": mean_loss(averaged), "losses": mean(each)}[ensemble]
    assert parts["adversarial"].item() == pytest.approx(expected, rel=1e-5)
    assert views.reference is not None
    maps = [attention_by_hand(view, groups[LABELS], "tokens") for view in (views.adversarial, views.reference)]
    assert parts["attention_adversarial"].item() == pytest.approx(0.08 * mean_distance(*maps), rel=1e-4)
    moved = points.clone()
    moved[:3] = 0  # the class names are for classification alone
    torch.testing.assert_close(objective.outer(views, LABELS, moved)[0], loss)


def test_descriptions_follow_the_class_names_in_the_order_of_the_labels(tmp_path: Path) -> None:
    names, descriptions = wordings(described(tmp_path), Forest(CLASSES), ("a {c}", "one {c}"))
    assert names == [["a fox", "one fox"], ["a cat", "one cat"], ["a bus", "one bus"]]
    assert descriptions == [["red fur"], ["a tail"], ["a soft one"], ["whiskers"], ["a long box"], ["on wheels"]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cat": []}, "no list of descriptions at 'cat'"),
        ({"cat": "soft"}, "no list of descriptions at 'cat'"),
        ({"cat": ["soft"]}, "1 descriptions at 'cat' and 2 at 'fox'"),
        ({"cow": ["with horns", "heavy"]}, "has 'cow', which the data set has not"),
        ({"cat": ["soft", " "]}, "an empty text at 'cat'"),
    ],
)  # fmt: skip
def test_descriptions_that_are_not_of_the_classes(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    config = described(tmp_path, **changes)
    with pytest.raises(DataError, match=message) as raised:
        wordings(config, Forest(CLASSES), ("{c}",))
    assert "\n" not in str(raised.value)
    with pytest.raises(DataError, match="misses 'owl' of the data set's classes"):
        wordings(described(tmp_path), Forest((*CLASSES, "owl")), ("{c}",))


# in training

TRAINED: list[schema.Objective] = [
    schema.PMGAFT(), schema.AGFT(), schema.TRADES(weight=1.0), schema.TGAZSR(), schema.SAFT(descriptions="{written}"),
]  # fmt: skip


@pytest.mark.parametrize("config", TRAINED, ids=lambda config: config.kind)
def test_two_steps_on_the_mini_model(config: schema.Objective, tmp_path: Path) -> None:
    """The loss of one batch falls, and the image tower alone gets a gradient."""
    config = described(tmp_path) if isinstance(config, schema.SAFT) else config
    trained = RobustFinetuning(
        load_backbone(ModelConfig("mini")), config, PGD(eps_255=4.0, step_255=4.0, steps=1), OptimConfig(),
        total_steps=2, forest=Forest(CLASSES), templates=("a {c}",), seed=0, log_every=10**6,
    )  # fmt: skip
    trained.setup("fit")
    trained.on_fit_start()
    batch = {"image": drawn(4, 3, 64, 64, seed=0).sigmoid(), "label": LABELS, "index": torch.arange(4)}
    optimizer = torch.optim.SGD([weight for weight in trained.parameters() if weight.requires_grad], lr=1e-4)
    losses = []
    for _ in range(3):
        loss = trained.training_step(batch, 0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[2] < losses[0]
    graded = {name for name, weight in trained.named_parameters() if weight.grad is not None}
    assert graded == {name for name, _ in trained.named_parameters() if name.startswith("backbone.clip.visual.")}


@pytest.mark.parametrize(
    ("make", "key"),
    [
        (lambda: schema.PMGAFT(temperature=0), "temperature"),
        (lambda: schema.PMGAFT(clean_weight=-1), "clean_weight"),
        (lambda: schema.AGFT(softness=0), "softness"),
        (lambda: schema.TRADES(weight=0), "weight"),
        (lambda: schema.Attention(map_size=0), "map_size"),
    ],
)
def test_settings_out_of_range(make: Any, key: str) -> None:
    with pytest.raises(FieldError) as raised:
        make()
    assert key in str(raised.value)
