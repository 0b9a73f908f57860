"""Text that others wrote, made harmless for a terminal, and the console through which all text goes."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.segment import Segment

_STEERING = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
"""Unicode's categories of what moves the cursor, reorders a line, breaks it, or cannot be printed at all."""
_OURS = "\n\t"


def printable(text: str, keep: str = "") -> str:
    """`text` with everything that could steer a terminal or reorder its line shown as an escape sequence."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escaped(c) if c not in keep and unicodedata.category(c) in _STEERING else c for c in text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


class SafeConsole(Console):
    """A console whose text can do nothing but be read: colours and bars are its own, other control sequences shown.

    Names, paths and messages come from files and folders that anybody may have made.
    """

    def render(self, *args: Any, **kwargs: Any) -> Iterable[Segment]:
        """The segments of what is printed, their text made harmless; control segments are rich's own."""
        for segment in super().render(*args, **kwargs):
            yield segment if segment.control else segment._replace(text=printable(segment.text, _OURS))

    def on_broken_pipe(self) -> None:
        """Whoever read has read enough (`| head`): nothing more is printed, and the work goes on."""
        self.quiet = True
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.file.fileno())  # where what is still in its buffer goes
        os.close(nowhere)
