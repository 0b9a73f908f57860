"""Prints the README's command reference from the commands themselves: `python -m tests.reference [--write]`."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from tstitch_cli.app import app

README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- reference -->", "<!-- /reference -->"
_OPTIONS_OF_ALL = {"--help"}
_KINDS = {"str": "TEXT", "int": "NUMBER", "float": "NUMBER"}


def contexts() -> Iterator[typer.Context]:
    """The command `tstitch` itself, then each subcommand."""
    root = typer.Context(command(), info_name="tstitch")
    yield root
    for name in root.command.list_commands(root):  # type: ignore[attr-defined]
        yield typer.Context(root.command.get_command(root, name), parent=root, info_name=name)  # type: ignore[attr-defined]


def command() -> Any:
    """The whole command line, as Typer makes it."""
    return typer.main.get_command(app)


def reference() -> str:
    """The reference in Markdown: usage, what it does and its options, for every subcommand."""
    return "\n".join(_section(context) for context in contexts())


def written(readme: str) -> str:
    """`readme` with the reference between its markers."""
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"README.md has no {BEGIN} ... {END}")
    return f"{before}{BEGIN}\n\n{reference()}\n{END}{after}"


def _section(context: typer.Context) -> str:
    usage = " ".join([context.command_path, *context.command.collect_usage_pieces(context)])
    # Typer writes an argument whose name ends with dots as {DENOISER...}...
    usage = re.sub(r"\{([^}.]+\S*?)(\.\.\.)?\}", r"\1", usage)
    lines = [f"### `{context.command_path}`", "", "```text", usage, "```", ""]
    # A line break within a paragraph is the docstring's, not the reader's.
    lines += [_plain(" ".join(part.split())) + "\n" for part in (context.command.help or "").split("\n\n")]
    lines += ["| option | what it does | default |", "| --- | --- | --- |"]
    for parameter in context.command.get_params(context):
        record = parameter.get_help_record(context)
        if record and not _OPTIONS_OF_ALL.intersection(parameter.opts):
            names = record[0] if parameter.param_type_name == "option" else record[0].split(" <")[0]
            lines.append(_line(names, record[1]))
    return "\n".join(lines) + "\n"


def _line(names: str, meaning: str) -> str:
    """A table row from Typer's help record, whose meaning ends with `  [default: 1; x>=1]`, where there is any."""
    meaning, _, brackets = meaning.partition("  [")
    facts = [fact for fact in brackets.removesuffix("]").split("; ") if fact]
    default = next((fact.removeprefix("default: ") for fact in facts if fact.startswith("default: ")), "")
    more = [_in_words(fact) for fact in facts if not fact.startswith("default: ")]
    names = re.sub(r"<(?:list\[)?(\w+)(?: range)?\]?>", lambda found: _KINDS.get(found[1], found[1].upper()), names)
    meaning += f" ({', '.join(more)})" if more else ""
    return f"| `{names}` | {_plain(meaning)} | {f'`{default}`' if default else ''} |"


def _in_words(fact: str) -> str:
    """A bound such as `x>=1` or `0<=x<=1` for people; `required` is that already."""
    at_least, between = re.fullmatch(r"x>=(\S+)", fact), re.fullmatch(r"(\S+)<=x<=(\S+)", fact)
    if at_least:
        return f"at least {float(at_least[1]):g}"
    return f"{float(between[1]):g} to {float(between[2]):g}" if between else fact


def _plain(text: str) -> str:
    """`text` with what Markdown would take for HTML or a table's border made harmless."""
    return text.replace("<", "&lt;").replace("|", "\\|")


if __name__ == "__main__":
    if sys.argv[1:] == ["--write"]:
        README.write_text(written(README.read_text(encoding="utf-8")), encoding="utf-8")
    else:
        print(reference())
