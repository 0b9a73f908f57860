"""What `tstitch convert` makes of original checkpoints: where it is kept, and whether it has been made."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tstitch_cli.errors import BadFileError
from tstitch_cli.zoo.entry import Entry, largest

_KIND = "converted:"


def folder() -> Path:
    """The folder of all conversions, in the user's data folder."""
    import platformdirs

    return Path(platformdirs.user_data_dir("tstitch")) / "converted"


def require(entries: Sequence[Entry]) -> None:
    """Returns where all is made that `entries`, and the pipeline of the largest, are made from checkpoints.

    Raises:
        BadFileError: something has not been converted yet; the hint has the command for each.
    """
    sources = [(entry.name, entry.source) for entry in entries]
    parts = largest(entries).parts
    if parts not in (source for _, source in sources):
        sources.append((parts.removeprefix(_KIND), parts))
    missing = [
        name
        for name, source in sources
        if source.startswith(_KIND) and not (folder() / source.removeprefix(_KIND)).is_dir()
    ]
    if not missing:
        return
    one = len(missing) == 1
    commands = " and ".join(f"`tstitch convert {name} CHECKPOINT`" for name in missing)
    raise BadFileError(
        f"{' and '.join(missing)} {'is' if one else 'are'} made from {'its' if one else 'their'} original "
        f"checkpoint{'' if one else 's'}, which {'has' if one else 'have'} not been converted yet",
        hint=f"download the checkpoint{'' if one else 's'} and run {commands}",
    )
