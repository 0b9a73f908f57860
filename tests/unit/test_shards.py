"""Which share and which device a process of a launcher takes."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from tstitch_cli.devices import use_local
from tstitch_cli.errors import DeviceError, UsageError
from tstitch_cli.jobs.shards import WHOLE, Shard, local_rank, of_rank


def test_the_share_is_by_rank() -> None:
    assert of_rank({"RANK": "2", "WORLD_SIZE": "8"}) == Shard(3, 8)
    assert of_rank({"RANK": "0", "WORLD_SIZE": "1"}) == of_rank({"RANK": "3"}) == of_rank({}) == WHOLE


@pytest.mark.parametrize(
    ("rank", "world"), [("2", "2"), ("-1", "2"), ("0", "0"), ("a", "2"), ("0", ""), ("0", "9" * 9)]
)
def test_a_rank_that_is_none(rank: str, world: str) -> None:
    with pytest.raises(UsageError, match="no rank among processes"):
        of_rank({"RANK": rank, "WORLD_SIZE": world})


def test_the_device_is_by_local_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []
    monkeypatch.setattr("torch.accelerator.device_count", lambda: 4)
    monkeypatch.setattr("torch.get_device_module", lambda device: SimpleNamespace(set_device=taken.append))
    for device, number in (("cuda", local_rank({"LOCAL_RANK": "3"})), ("cuda", 0), ("cuda", local_rank({}))):
        use_local(device, number)
    use_local("cuda:1", 2)
    use_local("cpu", 2)
    assert taken == [3]
    with pytest.raises(DeviceError, match=r"LOCAL_RANK=4.*has 4 of cuda"):
        use_local("cuda", 4)
