"""Resumption, workers and order: what a run reads depends on nothing but the plan."""

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from folders import config, eval_batches, packed, train_batches, train_plan

from configs.errors import DataError
from datamodules import build_datamodule
from datamodules.classification import ClassificationDataModule
from datamodules.loader import PlannedLoader
from datamodules.plan import EvalPlan


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "zoo"
    packed(folder, {"train": 22, "val": 7})
    return folder


def loader(folder: Path, consumed: int = 0, **changes: Any) -> PlannedLoader:
    return PlannedLoader(train_batches(folder, train_plan(folder)), config(folder, **changes), 5, consumed)


def stream(loader: PlannedLoader, batches: int) -> list[tuple[list[str], bytes]]:
    """Keys and pixels of so many batches, over as many epochs as it takes."""
    seen: list[tuple[list[str], bytes]] = []
    while len(seen) < batches:
        for batch in loader:
            seen.append((batch["key"], batch["image"].numpy().tobytes()))
            if len(seen) == batches:
                break
    return seen


def test_epochs_differ_and_are_whole(zoo: Path) -> None:
    epochs = loader(zoo)
    orders = [[key for batch in epochs for key in batch["key"]] for _ in range(3)]
    assert len(epochs) == 5
    assert all(len(set(order)) == len(order) == 20 for order in orders)
    assert len({tuple(order) for order in orders}) == 3


def test_resumption_is_exact_at_every_point(zoo: Path) -> None:
    whole = stream(loader(zoo), 12)
    for consumed in range(12):
        assert stream(loader(zoo, consumed), 12 - consumed) == whole[consumed:]


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_workers_change_nothing(zoo: Path, workers: int) -> None:
    whole = stream(loader(zoo), 12)
    first = stream(loader(zoo, workers=workers), 12)
    assert first == whole
    for consumed in (3, 5, 7):
        assert stream(loader(zoo, consumed, workers=workers), 12 - consumed) == whole[consumed:]


@pytest.mark.slow
def test_spawned_workers_change_nothing(zoo: Path) -> None:
    whole = stream(loader(zoo), 12)
    assert stream(loader(zoo, workers=2, start_method="spawn"), 12) == whole
    assert stream(loader(zoo, 7, workers=1, start_method="spawn"), 5) == whole[7:]


def test_an_abandoned_iterator_is_harmless(zoo: Path) -> None:
    for workers in (0, 2):
        whole = stream(loader(zoo), 8)
        interrupted = loader(zoo, workers=workers)
        iter(interrupted)  # as Lightning does, for nothing
        assert stream(interrupted, 3) + stream(interrupted, 5) == whole
        assert interrupted.consumed == 8


def test_the_loader_leaves_global_random_states_alone(zoo: Path) -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    list(loader(zoo))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("world", [1, 3])
def test_evaluation_sees_every_sample_once(zoo: Path, workers: int, world: int) -> None:
    plan = EvalPlan(7, 2, world)
    seen: list[str] = []
    for rank in range(world):
        ranks = PlannedLoader(eval_batches(zoo, "val", plan, rank), config(zoo, workers=workers), 0)
        assert len(list(ranks)) == len(ranks) == plan.batches
        for batch in ranks:
            seen += [key for key, valid in zip(batch["key"], batch["valid"], strict=True) if valid]
    assert seen == [f"val-{number}" for number in range(7)]


def test_evaluation_starts_over_after_an_early_end(zoo: Path) -> None:
    batches = PlannedLoader(eval_batches(zoo, "val", EvalPlan(7, 2)), config(zoo), 0)
    first = next(iter(batches))
    assert next(iter(batches))["key"] == first["key"]


def test_batches_keep_the_contract(zoo: Path) -> None:
    batch = next(iter(loader(zoo, workers=1)))
    assert batch["image"].shape == (4, 3, 8, 8)
    assert batch["image"].dtype == torch.uint8
    assert batch["label"].dtype == batch["index"].dtype == torch.int64
    assert batch["valid"].dtype == torch.bool
    assert batch["key"] == [f"train-{index}" for index in batch["index"].tolist()]
    assert batch["label"].tolist() == [index % 3 for index in batch["index"].tolist()]


def test_a_reader_travels_light(zoo: Path) -> None:
    batches = train_batches(zoo, train_plan(zoo))
    sent = pickle.dumps(batches)
    list(PlannedLoader(batches, config(zoo), 0))
    assert len(pickle.dumps(batches)) == len(sent) < 4000
    revived = pickle.loads(sent)[0, 0].batch
    assert revived["key"] == batches[0, 0].batch["key"]  # type: ignore[index]


def module(folder: Path, seed: int = 5, accumulate: int = 1, **changes: Any) -> ClassificationDataModule:
    built = build_datamodule(config(folder, **changes), seed, accumulate)
    assert isinstance(built, ClassificationDataModule)
    return built


def state_after(batches: int, folder: Path, **changes: Any) -> dict[str, Any]:
    return {**module(folder, **changes).state_dict(), "consumed": batches}


def test_a_state_positions_the_loader(zoo: Path) -> None:
    whole = stream(module(zoo).train_dataloader(), 9)
    resumed = module(zoo)
    resumed.load_state_dict(state_after(6, zoo))
    assert stream(resumed.train_dataloader(), 3) == whole[6:]


@pytest.mark.parametrize("change", [{"seed": 6}, {"batch_size": 2}, {"accumulate": 2}])
def test_another_plan_is_refused_within_an_epoch(zoo: Path, change: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="batch 1 of 5 of an epoch of another data plan"):
        module(zoo, **change).load_state_dict(state_after(6, zoo))


def test_another_plan_is_taken_up_between_epochs(zoo: Path) -> None:
    changed = module(zoo, batch_size=2)
    with pytest.warns(UserWarning, match="data plan changed"):
        changed.load_state_dict(state_after(10, zoo))
    with pytest.warns(UserWarning, match="data plan changed"):
        resumed = changed.train_dataloader()
    fresh = module(zoo, batch_size=2).train_dataloader()
    assert resumed.consumed == 2 * len(resumed) == 22
    assert stream(resumed, 4) == stream(fresh, 26)[22:]


def test_fewer_shards_than_readers(zoo: Path) -> None:
    with pytest.raises(DataError, match=r"6 training shards for 1 ranks x 7 workers"):
        module(zoo, workers=7).train_dataloader()
    module(zoo, workers=6).train_dataloader()


def test_describe(zoo: Path, tmp_path: Path) -> None:
    plan = module(zoo, accumulate=2).describe()
    assert (plan["samples"]["train"], plan["batches per epoch and rank"], plan["dropped per epoch"]) == (22, 4, 6)
    assert module(tmp_path / "later").describe()["packed"] is False
