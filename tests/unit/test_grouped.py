"""Grouped batches: made of whole groups, exact as the plain plan is, and every class as often as it occurs."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from folders import config, packed, samples
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from configs.errors import DataError, FieldError
from configs.schema.data import Grouping
from datamodules import build_datamodule
from datamodules.classification import ClassificationDataModule
from datamodules.grouped import GroupedPlan, GroupingLevel
from datamodules.pack import Sample
from datamodules.plan import TrainPlan

TREES = {
    "kind": {
        "levels": [["ant", "bee", "cow"], ["insect", "mammal"], ["animal"]],
        "parents": [[0, 0, 1], [0, 0]],
    },
    "leg": {"levels": [["ant", "bee", "cow"], ["six", "four"]], "parents": [[0, 0, 1]]},
    "torn": {"levels": [["ant", "bee", "cow"], ["insect", "mammal"]], "parents": [[0, 0, 2]]},
    "flat": {"levels": [["ant", "bee"], ["insect"]], "parents": [[0, 0]]},
    "odd": {"levels": "none"},
}


@st.composite
def plans(draw: st.DrawFn) -> GroupedPlan:
    shards = draw(st.lists(st.integers(5, 30), min_size=4, max_size=10).map(tuple))
    group, classes = draw(st.integers(2, 4)), draw(st.integers(1, 5))
    label = np.random.default_rng(draw(st.integers(0, 2**32))).integers(classes, size=sum(shards))
    batch_size = group * draw(st.sampled_from([1, 2, 4]))
    assume((np.bincount(label) // group).sum() * group >= batch_size)
    return plan(label, group, shards=shards, batch_size=batch_size, window=draw(st.integers(1, 4)))


def plan(classes: np.ndarray, group: int, **changes: Any) -> GroupedPlan:
    given: dict[str, Any] = {"shards": (len(classes),), "data_digest": "d", "seed": 3, "batch_size": 2 * group}
    return GroupedPlan(**(given | changes), classes=classes.astype(np.int32), group=group, where="here")


def epoch_of(plan: TrainPlan, epoch: int, world: int = 1) -> list[np.ndarray]:
    """Batches of an epoch, put together from all ranks."""
    ranks = [[plan.batch(epoch, batch, rank, world) for batch in range(plan.batches)] for rank in range(world)]
    return [np.concatenate(parts) for parts in zip(*ranks, strict=True)]


def groups_of(plan: GroupedPlan, epoch: int) -> np.ndarray:
    """Positions (groups read, group)."""
    return np.concatenate(epoch_of(plan, epoch)).reshape(-1, plan.group)


@settings(max_examples=25, deadline=None)
@given(plan=plans(), epoch=st.integers(0, 100))
def test_batches_are_whole_groups_and_read_each_sample_at_most_once(plan: GroupedPlan, epoch: int) -> None:
    for batch in epoch_of(plan, epoch):
        assert (batch.dtype, len(batch)) == (np.int64, plan.batch_size)
        classes = plan.classes[batch].reshape(-1, plan.group)
        assert (classes == classes[:, :1]).all()
    seen = np.concatenate(epoch_of(plan, epoch))
    assert len(np.unique(seen)) == len(seen) == plan.samples - plan.dropped
    assert plan.dropped < len(np.unique(plan.classes)) * (plan.group - 1) + plan.batch_size


@settings(max_examples=25, deadline=None)
@given(plan=plans(), epoch=st.integers(0, 100))
def test_batches_are_the_same_for_any_number_of_ranks(plan: GroupedPlan, epoch: int) -> None:
    for world in (world for world in (2, 4) if plan.batch_size % world == 0):
        for alone, together in zip(epoch_of(plan, epoch), epoch_of(plan, epoch, world), strict=True):
            np.testing.assert_array_equal(alone, together)
        if plan.batch_size // world % plan.group == 0:
            for rank in range(world):
                classes = plan.classes[plan.batch(epoch, 0, rank, world)].reshape(-1, plan.group)
                assert (classes == classes[:, :1]).all()


@settings(max_examples=25, deadline=None)
@given(plan=plans(), epoch=st.integers(0, 100))
def test_a_group_is_of_neighbours_of_its_class_in_the_plain_order(plan: GroupedPlan, epoch: int) -> None:
    plain = TrainPlan(plan.shards, plan.data_digest, plan.seed, plan.samples, window=plan.window)
    order = plain.batch(epoch, 0)
    place_of = np.argsort(order)
    for group in groups_of(plan, epoch):
        places = place_of[group]
        between = order[places.min() : places.max() + 1]
        assert set(between[plan.classes[between] == plan.classes[group[0]]]) == set(group)


def test_every_class_is_read_as_often_as_it_occurs_up_to_a_group() -> None:
    classes = np.repeat([0, 1, 2, 3], [40, 17, 8, 6])
    grouped = plan(np.random.default_rng(0).permutation(classes), 4, batch_size=4)
    for epoch in range(5):
        read = np.bincount(grouped.classes[np.concatenate(epoch_of(grouped, epoch))])
        assert read.tolist() == [40, 16, 8, 4]


def test_a_rare_class_is_spread_evenly_over_the_epoch() -> None:
    classes = np.random.default_rng(0).permutation(np.repeat([0, 1], [900, 100]))
    grouped = plan(classes, 10, batch_size=100)
    rare = np.array([grouped.classes[groups_of(grouped, epoch)[:, 0]] for epoch in range(200)])
    tenths = rare.reshape(200, 10, 10).sum((0, 2))
    assert abs(tenths - 200).max() < 45


def test_order_depends_on_seed_and_epoch() -> None:
    classes = np.arange(48) % 3
    orders = {tuple(groups_of(plan(classes, 4, seed=seed), epoch).ravel()) for seed in (0, 1, 2) for epoch in (0, 1, 2)}
    assert len(orders) == 9


def test_what_is_dropped_rotates() -> None:
    grouped = plan(np.arange(45) % 3, 4)  # 15 of each class: 12 in groups, and one group too many for whole batches
    dropped = [set(range(45)) - set(groups_of(grouped, epoch).ravel().tolist()) for epoch in range(40)]
    assert all(len(samples) == grouped.dropped == 13 for samples in dropped)
    assert set().union(*dropped) == set(range(45))


def test_whole_accumulation_windows_and_too_few_groups() -> None:
    grouped = plan(np.arange(48) % 3, 4, accumulate=4)
    assert (grouped.groups, grouped.batches, grouped.steps) == (12, 4, 1)
    with pytest.raises(DataError, match=r"12 groups of 4 training samples .* 7 x 8"):
        plan(np.arange(57) % 3, 4, accumulate=7)


def test_digest_tells_plans_apart() -> None:
    classes = np.arange(48) % 3
    others = [plan(classes, 4, seed=4), plan(classes, 2, batch_size=8), plan(np.arange(48) % 4, 4)]
    digests = {plan(classes, 4).digest, TrainPlan((48,), "d", 3, 8).digest, *(other.digest for other in others)}
    assert len(digests) == 5
    assert plan(classes, 4).digest == plan(classes.copy(), 4).digest


def test_a_worker_that_is_sent_the_plan_reads_the_same() -> None:
    grouped = plan(np.arange(48) % 3, 4)
    revived = pickle.loads(pickle.dumps(grouped))
    np.testing.assert_array_equal(groups_of(revived, 2), groups_of(grouped, 2))


def test_a_class_smaller_than_a_group() -> None:
    def build(*counts: int) -> GroupedPlan:
        label = np.repeat(np.arange(4), counts)
        level = GroupingLevel(("a", "b", "c", "d"), np.arange(4), "here")
        return GroupedPlan.of(TrainPlan((len(label),), "d", 3, 4), level, label, 4)

    assert build(8, 4, 0, 4).groups == 4  # a class that the split lacks is none
    with pytest.raises(DataError, match=r"'d' of here has 2 .*samples=4, nor would 1 others: lower it"):
        build(8, 3, 0, 2)


# Data sets


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "zoo"
    packed(folder, {"train": 29, "val": 3}, trees=TREES)
    return folder


def module(folder: Path, seed: int = 5, samples: int = 2, **changes: Any) -> ClassificationDataModule:
    grouping = Grouping(changes.pop("tree", "kind"), changes.pop("level", 1), samples)
    built = build_datamodule(config(folder, grouping=grouping, **changes), seed)
    assert isinstance(built, ClassificationDataModule)
    return built


def stream(module: ClassificationDataModule, batches: int) -> list[tuple[list[str], bytes]]:
    """Keys and pixels of so many batches, over as many epochs as it takes."""
    loader, seen = module.train_dataloader(), []
    while len(seen) < batches:
        for batch in loader:
            seen.append((batch["key"], batch["image"].numpy().tobytes()))
            if len(seen) == batches:
                break
    return seen


def kinds(label: np.ndarray) -> np.ndarray:
    return np.array([0, 0, 1])[label]


def test_batches_share_parents_or_leaves(zoo: Path) -> None:
    def labels(**changes: Any) -> np.ndarray:
        loader = module(zoo, samples=4, **changes).train_dataloader()
        return np.concatenate([batch["label"].numpy() for batch in loader]).reshape(-1, 4)

    parents, leaves = labels(), labels(tree=None)
    assert all(len(set(kinds(group))) == 1 for group in parents)
    assert any(len(set(group)) == 2 for group in parents)
    assert all(len(set(group)) == 1 for group in leaves)


@pytest.mark.parametrize("workers", [0, 2])
def test_resumption_is_exact_at_every_point(zoo: Path, workers: int) -> None:
    whole = stream(module(zoo), 16)
    assert len(module(zoo).train_dataloader()) == 7
    for consumed in (range(16), (5, 7, 9))[workers > 0]:
        resumed = module(zoo, workers=workers)
        resumed.load_state_dict({"consumed": consumed, "plan": resumed.train_plan.digest, "batches": 7})
        assert stream(resumed, 16 - consumed) == whole[consumed:]


def test_a_plan_without_groups_is_refused_within_an_epoch(zoo: Path) -> None:
    state = {**module(zoo).state_dict(), "consumed": 3}
    with pytest.raises(DataError, match="another data plan"):
        build_datamodule(config(zoo), seed=5).load_state_dict(state)
    with pytest.raises(DataError, match="another data plan"):
        module(zoo, samples=4).load_state_dict(state)


def test_an_unreadable_sample_is_replaced_by_one_of_its_class(tmp_path: Path) -> None:
    def broken(sample: Sample, number: int) -> Sample:
        return Sample(sample.key, b"no picture" if number % 5 == 0 else sample.image, "png", sample.label, sample.text)

    train = [broken(sample, number) for number, sample in enumerate(samples("train", 40))]
    packed(tmp_path / "zoo", {}, splits={"train": train}, trees=TREES)
    tolerant = module(tmp_path / "zoo", samples=4, max_errors=99)
    for batch in tolerant.train_dataloader():
        assert len(set(kinds(batch["label"].numpy()))) == 1
    assert tolerant.errors >= 6


def test_describe(zoo: Path, tmp_path: Path) -> None:
    told = module(zoo).describe()
    assert told["groups per batch"] == "2 of 2 samples of a class, of 2 classes of level 1 of tree 'kind'"
    assert (told["dropped for whole groups"], told["dropped per epoch"]) == (1, 1)
    assert "groups per batch" not in build_datamodule(config(zoo), seed=5).describe()
    assert "groups per batch" not in module(tmp_path / "later").describe()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tree": "kinds"}, r"data\.grouping\.tree='kinds' is no tree of data set 'zoo': did you mean 'kind'\?"),
        ({"tree": "kind", "level": 3}, r"tree 'kind' of data set 'zoo' has no level 3 .*: choose from 1 to 2"),
        ({"tree": "kind", "level": 2}, r"level 2 of tree 'kind' has no other class than 'animal' to group by"),
        ({"tree": "torn"}, "tree 'torn' of data set 'zoo' is none over its 3 classes"),
        ({"tree": "flat"}, "tree 'flat' of data set 'zoo' is none over its 3 classes"),
        ({"tree": "odd"}, "tree 'odd' of data set 'zoo' is none over its 3 classes"),
        (
            {"samples": 12, "batch_size": 12},
            r"'mammal' of level 1 of tree 'kind' has 9 training samples and .*samples=12: lower it",
        ),
    ],
)
def test_a_grouping_that_does_not_fit_the_data(zoo: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        module(zoo, **changes).train_dataloader()


def test_a_data_set_without_trees(tmp_path: Path) -> None:
    packed(tmp_path / "zoo", {"train": 12})
    with pytest.raises(DataError, match="'kind' is no tree of data set 'zoo': it has none, leave it null"):
        module(tmp_path / "zoo").train_dataloader()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Grouping(samples=1), "samples must be >= 2"),
        (lambda: Grouping("kind", 0), "level must be >= 1"),
        (lambda: Grouping(level=2), r"level = 2 is of no tree; set data\.grouping\.tree"),
        (lambda: config(Path("zoo"), batch_size=6, grouping=Grouping(samples=4)), r"6 is not a multiple .*samples=4"),
    ],
)
def test_a_grouping_that_fits_nothing(build: Callable[[], object], message: str) -> None:
    with pytest.raises(FieldError, match=message):
        build()
