"""Answers that are down are not asked for again, whichever rank put them down, and come back as they were."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lightning_modules.answers import Answers, Columns


def truth(index: Tensor) -> Columns:
    """Columns of several kinds and shapes, which depend on the index alone."""
    return {
        "answers": index[:, None, None] + torch.arange(6).view(2, 3),
        "right": index % 3 == 0,
        "value": index.double()[:, None] / torch.tensor([3.0, 7.0], dtype=torch.float64),
    }


def asking(index: Tensor, asked: list[int]) -> Callable[[Tensor], Columns]:
    def ask(rows: Tensor) -> Columns:
        asked.extend(index[rows].tolist())
        return truth(index[rows])

    return ask


def assert_true(found: Columns, index: Tensor) -> None:
    for name, column in truth(index).items():
        assert found[name].dtype == column.dtype
        assert torch.equal(found[name], column)


def look(answers: Answers, *batches: list[int]) -> list[int]:
    """Has batches answered, checks what is said, and returns whom was asked about."""
    asked: list[int] = []
    for batch in batches:
        index = torch.tensor(batch)
        assert_true(answers.of(index, asking(index, asked)), index)
    answers.close()
    return asked


def test_a_sample_is_asked_about_once_over_attempts_of_any_number_of_ranks(tmp_path: Path) -> None:
    assert look(Answers(tmp_path, 0), [4, 0], [8]) == [4, 0, 8]
    assert look(Answers(tmp_path, 1), [5, 1]) == [5, 1]
    assert look(Answers(tmp_path, 0), [0, 1, 2, 3], [4, 5], [8, 9]) == [2, 3, 9]
    assert look(Answers(tmp_path, 0), [9, 3, 5, 0]) == []


def test_without_a_folder_everything_is_asked() -> None:
    answers = Answers(None)
    assert look(answers, [1, 2], [2, 3]) == [1, 2, 2, 3]
    assert not answers.known(torch.tensor([1])).any()


def test_padding_is_asked_about_and_not_put_down(tmp_path: Path) -> None:
    for _ in range(2):
        assert look(Answers(tmp_path), [-1]) == [-1]
    assert look(Answers(tmp_path), [7]) == [7]
    assert look(Answers(tmp_path), [7]) == []


@pytest.mark.parametrize("cut", [1, 40])
def test_what_a_kill_left_in_part_is_asked_again(tmp_path: Path, cut: int) -> None:
    look(Answers(tmp_path), [0, 1, 2])
    (path,) = tmp_path.iterdir()
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - cut)
    assert look(Answers(tmp_path), [0, 1, 2]) == [2]
    assert look(Answers(tmp_path), [0, 1, 2]) == []


def test_names_need_not_be_in_one_order(tmp_path: Path) -> None:
    """What is recalled and what is asked are matched by name."""
    look(Answers(tmp_path), [3])
    index = torch.tensor([2, 3])

    def reversed_columns(rows: Tensor) -> Mapping[str, Tensor]:
        return dict(reversed(truth(index[rows]).items()))

    assert_true(Answers(tmp_path).of(index, reversed_columns), index)
