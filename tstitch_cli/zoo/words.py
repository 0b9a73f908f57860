"""Finds the words and symbols of prompts that denoisers trained on few words have never seen."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence

from tstitch_cli.schema import Plan
from tstitch_cli.zoo.entry import Entry
from tstitch_cli.zoo.registry import Zoo

_WRITTEN = re.compile(r"[^\W_]+(?:-[^\W_]+)*|[^\w\s]")
"""A word, or a sign that stands beside words."""
_SYMBOLS = {"So", "Sm", "Sc"}
"""Unicode's categories of the signs that mean something: emoji and the like, of mathematics, of money."""
_SHOWN, _LONGEST = 8, 40
"""Unknown words that are told, and the letters of each that are shown."""
_TYPED = 4
"""Letters from which on a word that is near another is taken for a slip: `and` is not meant as `an`."""


def unknown(entry: Entry, prompts: Iterable[str]) -> tuple[str, ...]:
    """The words of `prompts`, and symbols such as emoji, that `entry` was not trained on, each once.

    None where the zoo names no words for it. Letter case and punctuation aside; words with a hyphen between them are
    known if each is.
    """
    known = {word.casefold() for word in entry.conditioning.words}
    if not known:
        return ()
    written = (word for prompt in prompts for word in _words(prompt.casefold()))
    return tuple(dict.fromkeys(word for word in written if word not in known and not known.issuperset(word.split("-"))))


def _words(text: str) -> Iterator[str]:
    """The words and symbols of `text` in its order. Of one made of several, such as a flag, each is one."""
    for found in _WRITTEN.findall(text):
        if found[0].isalnum() or unicodedata.category(found) in _SYMBOLS:
            yield found


def remark(entry: Entry, prompts: Iterable[str]) -> str | None:
    """What to tell of unknown words in `prompts`, and which there are; None where there is nothing to tell."""
    found = unknown(entry, prompts)
    if not found:
        return None
    words = entry.conditioning.words
    told = []
    for word in found[:_SHOWN]:
        near = difflib.get_close_matches(word[:_LONGEST], words, n=1, cutoff=0.75) if len(word) >= _TYPED else []
        told.append(f"'{word[:_LONGEST]}'" + (f" (did you mean '{near[0]}'?)" if near else ""))
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return (
        f"{entry.name} was trained on few words and does not know {', '.join(told)}{more}: what it draws for "
        f"{'it' if len(found) == 1 else 'them'} may be anything; its words are {_listed(words)}"
    )


def _listed(words: Sequence[str]) -> str:
    """All of them, those that are others' plurals in one word."""
    single = [word for word in words if not {word.removesuffix("s"), word.removesuffix("es")} & set(words) - {word}]
    return ", ".join(single) + ("" if len(single) == len(words) else " and plurals")


def remark_on(plan: Plan, prompts: Iterable[str]) -> str | None:
    """The remark on prompts for the largest of a plan's denoisers that has a name in the zoo or is a folder.

    Raises what `Zoo.planned` raises.
    """
    zoo = Zoo.load()
    for denoiser in reversed(plan.denoisers):
        known = zoo.entries.get(denoiser.name)
        if denoiser.source.startswith("folder:") or (known is not None and known.source == denoiser.source):
            return remark(zoo.planned(denoiser), prompts)
    return None
