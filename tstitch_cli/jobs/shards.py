"""Which share of a job this process draws: `--shard 3/8`, or its rank under torchrun and accelerate launch."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from tstitch_cli.errors import UsageError

T = TypeVar("T")
MOST = 1_000_000


@dataclass(frozen=True)
class Shard:
    """Number `number` of `of` equal shares, from 1."""

    number: int = 1
    of: int = 1

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    def take(self, items: Sequence[T]) -> tuple[T, ...]:
        """This share of `items`, every n-th: all shares together are all items, and none is in two of them."""
        return tuple(items[self.number - 1 :: self.of])


WHOLE = Shard()


def parse(text: str) -> Shard:
    """The share that `3/8` stands for; raises UsageError where it is none."""
    found = re.fullmatch(r"([0-9]{1,7})/([0-9]{1,7})", text.strip())
    number, of = (int(found[1]), int(found[2])) if found else (0, 0)
    if not 1 <= number <= of <= MOST:
        raise UsageError(f"--shard {text}: which share is that?", hint="give 1/8, 2/8 ... 8/8 to eight processes")
    return Shard(number, of)


def of_rank(environment: Mapping[str, str] = os.environ) -> Shard:
    """The share of this process's rank (RANK, WORLD_SIZE), the whole where no launcher has set them.

    Raises UsageError where they mean nothing.
    """
    rank, world = environment.get("RANK"), environment.get("WORLD_SIZE")
    if rank is None or world is None:
        return WHOLE
    if not (rank.isdecimal() and world.isdecimal() and int(rank) < int(world) <= MOST):
        raise UsageError(
            f"RANK={rank} and WORLD_SIZE={world} are no rank among processes",
            hint="unset them, or say which share this process is with --shard 1/8",
        )
    return Shard(int(rank) + 1, int(world))


def local_rank(environment: Mapping[str, str] = os.environ) -> int | None:
    """The number of this process on its machine (LOCAL_RANK), which tells the device it takes; None where not set."""
    number = environment.get("LOCAL_RANK", "")
    return int(number) if number.isdecimal() else None
