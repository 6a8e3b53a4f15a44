import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.errors import DataError
from datamodules.plan import EvalPlan, TrainPlan

plans = st.builds(
    TrainPlan,
    shards=st.lists(st.integers(1, 9), min_size=6, max_size=12).map(tuple),
    data_digest=st.just("d"),
    seed=st.integers(0, 2**32),
    batch_size=st.sampled_from([1, 2, 4, 6]),
    accumulate=st.just(1),
    window=st.integers(1, 5),
)


def epoch_of(plan: TrainPlan, epoch: int, world: int = 1) -> list[np.ndarray]:
    """Batches of an epoch, put together from all ranks."""
    ranks = [[plan.batch(epoch, batch, rank, world) for batch in range(plan.batches)] for rank in range(world)]
    return [np.concatenate(parts) for parts in zip(*ranks, strict=True)]


@settings(max_examples=30, deadline=None)
@given(plan=plans, epoch=st.integers(0, 100))
def test_an_epoch_reads_each_sample_at_most_once_and_accounts_for_the_rest(plan: TrainPlan, epoch: int) -> None:
    seen = np.concatenate(epoch_of(plan, epoch))
    assert len(np.unique(seen)) == len(seen) == plan.samples - plan.dropped
    assert set(seen) <= set(range(plan.samples))
    assert plan.dropped < plan.batch_size * plan.accumulate


@settings(max_examples=20, deadline=None)
@given(plan=plans, epoch=st.integers(0, 100))
def test_batches_are_the_same_for_any_number_of_ranks(plan: TrainPlan, epoch: int) -> None:
    for world in (world for world in (2, 3, 6) if plan.batch_size % world == 0):
        for alone, together in zip(epoch_of(plan, epoch), epoch_of(plan, epoch, world), strict=True):
            np.testing.assert_array_equal(alone, together)


def naive_order(plan: TrainPlan, epoch: int) -> list[int]:
    """The whole order at once, from windows that are read off batch by batch."""
    return [int(plan_sample) for batch in epoch_of(plan, epoch) for plan_sample in batch]


@settings(max_examples=20, deadline=None)
@given(plan=plans, epoch=st.integers(0, 100))
def test_samples_are_mixed_only_within_windows_of_shards(plan: TrainPlan, epoch: int) -> None:
    shard_of = np.repeat(np.arange(len(plan.shards)), plan.shards)
    order = shard_of[naive_order(plan, epoch)]
    first = {shard: int(np.flatnonzero(order == shard)[0]) for shard in np.unique(order)}
    last = {shard: int(np.flatnonzero(order == shard)[-1]) for shard in np.unique(order)}
    for place in range(len(order)):
        assert sum(first[shard] <= place <= last[shard] for shard in first) <= plan.window


def plan(**changes: object) -> TrainPlan:
    settings: dict[str, object] = {"shards": (8,) * 6, "data_digest": "d", "seed": 3, "batch_size": 5, "window": 2}
    return TrainPlan(**(settings | changes))  # type: ignore[arg-type]


def test_order_depends_on_seed_and_epoch() -> None:
    orders = {tuple(naive_order(plan(seed=seed), epoch)) for seed in (0, 1, 2) for epoch in (0, 1, 2)}
    assert len(orders) == 9


def test_what_is_dropped_rotates() -> None:
    everything = set(range(48))
    dropped = [everything - set(naive_order(plan(), epoch)) for epoch in range(20)]
    assert all(len(samples) == plan().dropped == 3 for samples in dropped)
    assert len(set().union(*dropped)) > 20


def test_whole_accumulation_windows() -> None:
    assert plan().batches == 9
    assert (plan(accumulate=4).batches, plan(accumulate=4).steps, plan(accumulate=4).dropped) == (8, 2, 8)


def test_too_few_samples() -> None:
    with pytest.raises(DataError, match=r"48 training samples .* 10 x 5"):
        plan(accumulate=10)
    assert plan(accumulate=9).batches == 9


def test_ranks_must_divide_the_batch() -> None:
    with pytest.raises(DataError, match=r"data\.batch_size=5 .* 2 ranks"):
        plan().batch(0, 0, 0, 2)


def test_digest_tells_plans_apart() -> None:
    changes = [{}, {"seed": 4}, {"batch_size": 6}, {"window": 3}, {"data_digest": "e"}, {"accumulate": 2}]
    assert len({plan(**change).digest for change in changes}) == len(changes)
    assert plan().digest == plan().digest


@settings(max_examples=100, deadline=None)
@given(
    population=st.integers(1, 60),
    batch_size=st.integers(1, 20),
    world=st.integers(1, 5),
    subset=st.none() | st.integers(1, 70),
)
def test_evaluation_sees_every_sample_once(population: int, batch_size: int, world: int, subset: int | None) -> None:
    plan = EvalPlan(population, batch_size, world, subset)
    valid_of_rank = []
    for rank in range(world):
        fetched = [plan.batch(batch, rank) for batch in range(plan.batches)]
        assert all(len(indices) == len(valid) == plan.local for indices, valid in fetched)
        assert all(((indices >= 0) & (indices < population)).all() for indices, _ in fetched)
        valid_of_rank.append(np.concatenate([indices[valid] for indices, valid in fetched]))
    seen = np.concatenate(valid_of_rank)
    assert len(seen) == plan.samples == min(subset or population, population)
    assert (np.diff(seen) > 0).all()
    assert max(map(len, valid_of_rank)) - min(map(len, valid_of_rank)) <= 1
    if subset is None:
        np.testing.assert_array_equal(seen, np.arange(population))


@settings(max_examples=50, deadline=None)
@given(population=st.integers(2, 500), data=st.data())
def test_a_subset_is_evenly_spread(population: int, data: st.DataObject) -> None:
    subset = data.draw(st.integers(1, population))
    plan = EvalPlan(population, 7, 1, subset)
    seen = np.concatenate([indices[valid] for indices, valid in map(plan.batch, range(plan.batches))])
    gaps = np.diff(np.append(seen, population + seen[0]))
    assert gaps.max() - gaps.min() <= 1
