"""What the ledger has of a sample, it has for good; what it has in part, it does not have."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lightning_modules.ledger import RECORD, Array, Journal, Ledger, Precision, stored


def records(*indices: int) -> Array:
    rows = np.zeros(len(indices), RECORD)
    rows["written"], rows["index"], rows["label"] = True, indices, [index % 5 for index in indices]
    rows["zero_gradient"] = [index / 3 for index in indices]
    return rows


def pixels(*indices: int) -> torch.Tensor:
    """An image that depends on the index alone."""
    random = [np.random.default_rng(index).random((3, 4, 4), np.float32) for index in indices]
    return torch.from_numpy(np.stack(random))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(first=st.integers(0, 5), second=st.integers(0, 5), cut=st.integers(0, 400))
def test_a_journal_cut_at_any_byte_keeps_its_whole_rows(tmp_path: Path, first: int, second: int, cut: int) -> None:
    path = tmp_path / "journal.npy"
    path.unlink(missing_ok=True)
    whole = Journal(path)
    whole.append(records(*range(first)))
    whole.close()
    header = path.stat().st_size - first * RECORD.itemsize
    with path.open("r+b") as file:
        file.truncate(max(path.stat().st_size - cut, 0))
    kept = max(path.stat().st_size - header, 0) // RECORD.itemsize
    left = Journal(path).rows()
    assert (0 if left is None else len(left)) == kept
    again = Journal(path)
    again.append(records(*range(100, 100 + second)))
    again.close()
    rows = Journal(path).rows()
    assert ([] if rows is None else rows["index"].tolist()) == [*range(kept), *range(100, 100 + second)]
    assert rows is None or np.array_equal(rows, records(*rows["index"].tolist()))


def test_rows_that_a_power_cut_left_empty_do_not_count(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.npy")
    journal.append(records(3, 4))
    journal.close()
    with journal.path.open("ab") as file:
        file.write(bytes(RECORD.itemsize * 2))
    rows = journal.rows()
    assert rows is not None
    assert rows["index"].tolist() == [3, 4]
    journal.append(records(5))
    rows = journal.rows()
    assert rows is not None
    assert rows["index"].tolist() == [3, 4, 5]


def test_any_rank_knows_what_all_ranks_settled(tmp_path: Path) -> None:
    for rank, indices in enumerate([(0, 1, 2), (7, 5), (9,)]):
        Ledger(tmp_path, rank).settle(records(*indices), pixels(*indices))
    for rank in (0, 1, 5):
        ledger = Ledger(tmp_path, rank)
        assert sorted(ledger.known) == [0, 1, 2, 5, 7, 9]
        assert all(np.array_equal(ledger.known[index], records(index)[0]) for index in ledger.known)


def test_without_a_folder_nothing_is_written_and_the_process_knows() -> None:
    ledger = Ledger()
    ledger.settle(records(2, 1), pixels(2, 1))
    assert sorted(ledger.known) == [1, 2]
    assert Ledger().known == {}


@pytest.mark.parametrize(("save", "error"), [("uint8", 0.5 / 255), ("fp16", 2**-12), ("fp32", 0.0)])
def test_images_are_kept_to_their_precision_and_come_in_order(tmp_path: Path, save: Precision, error: float) -> None:
    for rank, indices in enumerate([(8, 0), (3, 1)]):
        Ledger(tmp_path, rank, save).settle(records(*indices), pixels(*indices))
    ledger = Ledger(tmp_path, 0, save)
    kept = list(ledger.kept([0, 1, 3, 8]))
    assert [int(record["index"]) for record, _ in kept] == [0, 1, 3, 8]
    found = ledger.images([3, 8])
    assert found.dtype == torch.float32
    assert (found - pixels(3, 8)).abs().max() <= error + 1e-7
    assert np.array_equal(np.stack([image for _, image in kept]), stored(pixels(0, 1, 3, 8), save))


def test_a_sample_whose_image_is_missing_is_not_known(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, 0, "fp32")
    ledger.settle(records(0, 1), pixels(0, 1))
    ledger.close()
    with (tmp_path / "images-0.npy").open("r+b") as file:
        file.truncate((tmp_path / "images-0.npy").stat().st_size - 1)
    assert sorted(Ledger(tmp_path, 0, "fp32").known) == [0]
    assert sorted(Ledger(tmp_path, 0).known) == [0, 1]
    ledger.discard_images()
    assert Ledger(tmp_path, 0, "fp32").known == {}


def test_pictures_outlive_the_process(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, 0, pictures=True)
    numbers = {"label": np.array([1, 2]), "clean_prediction": np.array([1, 2])}
    ledger.show(pixels(4, 6), pixels(5, 7), index=np.array([4, 6]), adversarial_prediction=np.array([0, -1]), **numbers)
    found = Ledger(tmp_path, 1, pictures=True).pictures
    assert sorted(found) == [4, 6]
    assert np.array_equal(found[4]["adversarial"], stored(pixels(5), "uint8")[0])
    assert found[6]["adversarial_prediction"] == -1
