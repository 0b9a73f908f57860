"""The README's table of the zoo: `python -m tests.zoo_table --write` puts it in, a test keeps it true."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from tests.reference import README
from tstitch_cli.commands.zoo import by_family, in_words, parameters_in_words
from tstitch_cli.zoo.entry import Entry
from tstitch_cli.zoo.registry import BUNDLED, Zoo

BEGIN, END = "<!-- zoo -->\n", "<!-- /zoo -->\n"


def written(text: str) -> str:
    """`text` with the table between its two marks made anew."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + BEGIN + "\n" + "\n".join(lines()) + "\n\n" + END + after


def lines() -> Iterator[str]:
    """The table, family by family."""
    yield "| denoiser | parameters | what it is | source | licence |"
    yield "| --- | ---: | --- | --- | --- |"
    for family, members in by_family(Zoo.shipped().entries.values()):
        yield f"| **{family}** | | {in_words(members)} | | |"
        for entry in members:
            size = parameters_in_words(entry.parameters)
            yield f"| `{entry.name}` | {size} | {entry.title} | {_link(entry)} | {entry.licence} |"


def _link(entry: Entry) -> str:
    kind, _, where = entry.source.partition(":")
    if kind == "hub":
        return f"[{where}](https://huggingface.co/{where})"
    if kind == "converted":
        return "`tstitch convert`"
    return f"[bundled](tstitch_cli/zoo/{BUNDLED.name}/{where})"


if __name__ == "__main__":
    text = README.read_text(encoding="utf-8")
    if "--write" in sys.argv:
        README.write_text(written(text), encoding="utf-8")
    elif written(text) != text:
        sys.exit("the README's table of the zoo is stale: run `python -m tests.zoo_table --write`")
