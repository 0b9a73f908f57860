"""What the fuzzer knows of a kind of file."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Kind:
    """A kind of file, and what is done with one that somebody sent."""

    seeds: Callable[[Path], Sequence[bytes]]
    """Sound files, made in an empty folder."""
    mutate: Callable[[bytes, Sequence[bytes], random.Random], bytes]
    name: str
    """The file's, in the folder that it is read in."""
    read: Callable[[Path], object]
    """Reads it, and does with what was read what the commands do before anything is loaded."""
    one_in: int = 1
    """One is tried where there are so many of the others, for reading it takes long."""
