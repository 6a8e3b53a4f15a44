"""How ranks share work out. tests/distributed has real ones."""

import pytest
import torch

from lightning_modules import ranks


@pytest.mark.parametrize("world", [1, 2, 3, 8])
@pytest.mark.parametrize("count", [1, 2, 5, 8, 64])
def test_shares_are_of_one_size_and_lack_nothing_in_order(
    count: int, world: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    shares = []
    for rank in range(world):
        monkeypatch.setattr(ranks, "position", lambda rank=rank: (rank, world))
        shares.append(ranks.share(count))
    assert len({len(each) for each in shares}) == 1
    assert len(shares[0]) < 1 + count / world
    assert torch.equal(torch.cat(shares)[:count], torch.arange(count))
    assert int(torch.cat(shares).max()) == count - 1


def test_a_process_alone_is_a_run_of_one_rank() -> None:
    values = torch.arange(3.0)
    assert ranks.position() == (0, 1)
    assert ranks.gathered(values) is values
    assert ranks.summed(values) is values
