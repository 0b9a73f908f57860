"""Processor time by part of the report, kept on disk, so that runs that were cut are counted too."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

from tstitch_cli import files


class Stopwatch:
    """Adds up the seconds of a part, lap by lap; the processor's, which a busy machine does not lengthen."""

    def __init__(self, path: Path, now: Callable[[], float] = time.process_time) -> None:
        self.path, self.now = path, now
        self.part, self.last = "", now()

    def start(self, part: str) -> None:
        """From now on the time is that of `part`."""
        self.part, self.last = part, self.now()

    def lap(self) -> float:
        """Writes down what has passed; returns the seconds of the part in all runs."""
        now, seconds = self.now(), self.seconds()
        seconds[self.part] = round(seconds.get(self.part, 0.0) + now - self.last, 2)
        self.last = now
        files.write(self.path, json.dumps(seconds).encode(), overwrite=True)
        return seconds[self.part]

    def seconds(self) -> dict[str, float]:
        """Of every part."""
        if not self.path.is_file():
            return {}
        found: dict[str, float] = json.loads(self.path.read_text(encoding="utf-8"))
        return found
