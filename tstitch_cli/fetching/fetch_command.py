"""The `tstitch fetch` command that fetches, ahead of a run, all that the run needs of the hub."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from tstitch_cli.fetching import hub
from tstitch_cli.zoo.controls import Control
from tstitch_cli.zoo.entry import Entry
from tstitch_cli.zoo.registry import Zoo


def fetch_command(entries: Sequence[Entry], dtype: str, control: Control | None, embeddings: str | None) -> str:
    """The command for `entries` in `dtype` with the ControlNet `control`; `embeddings` are a setting's."""
    known = Zoo.load().entries
    named = [_argument(entry, known.get(entry.name)) for entry in entries if _of_hub(entry)]
    names = named or [entry.name for entry in entries]
    return command_for(names, dtype, None if control is None else control.name, embeddings)


def command_for(names: Sequence[str], dtype: str | None, control: str | None, embeddings: str | None) -> str:
    """The command for denoisers as the command line names them, with the options that were given."""
    options = {"--dtype": dtype, "--control": control, "--embeddings": embeddings}
    given = [word for option, value in options.items() if value is not None for word in (option, value)]
    return shlex.join(["tstitch", "fetch", *names, *given])


def _of_hub(entry: Entry) -> bool:
    return any(hub.place(source) for source in (entry.source, entry.parts))


def _argument(entry: Entry, known: Entry | None) -> str:
    """How the command line names `entry`: by the zoo's name where that is the same denoiser, with its own commit."""
    own = hub.place(entry.source)
    if known is not None and known.source == entry.source:
        same = own is None or entry.revision in (None, known.revision)
        return entry.name if same else f"{entry.name}@{entry.revision}"
    return entry.name if own is None else f"{own[0]}@{entry.revision}" if entry.revision else own[0]
