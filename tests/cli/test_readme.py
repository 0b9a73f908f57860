"""The README is true: its reference is the commands' own, its command lines parse, its links lead somewhere."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from tests import zoo_table
from tests.reference import README, command, contexts, written
from tstitch_cli.errors import ExitStatus
from tstitch_cli.zoo.registry import Zoo

ROOT = README.parent
TEXT = README.read_text(encoding="utf-8")
CONTEXTS = {context.info_name: context for context in contexts()}


def blocks(language: str) -> list[str]:
    """The fenced blocks in a language, continued lines joined."""
    found = re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
    return [block.replace("\\\n", " ") for block in found]


def typed() -> Iterator[list[str]]:
    """The words of every whole `tstitch` command line that is shown to be typed."""
    for block in blocks("sh"):
        for line in block.splitlines():
            for part in line.split("&&"):
                words = shlex.split(part, comments=True)
                if words[:1] == ["tstitch"]:
                    yield words[1:]


def mentioned() -> Iterator[list[str]]:
    """The words of every `tstitch ...` in running text, which may leave out what a whole command needs."""
    prose = re.sub(r"^```.*?^```", "", TEXT, flags=re.MULTILINE | re.DOTALL)
    for code in re.findall(r"`(tstitch [^`]*)`", prose):
        yield shlex.split(code)[1:]


def options(context: typer.Context) -> set[str]:
    parameters = context.command.get_params(context)
    names = {name for parameter in parameters for name in (*parameter.opts, *parameter.secondary_opts)}
    return {name for name in names if name.startswith("--")}


def test_the_reference_is_the_commands_own() -> None:
    assert written(TEXT) == TEXT, "run `python -m tests.reference --write`"


def test_the_reference_has_every_option_and_notices_a_change() -> None:
    for context in CONTEXTS.values():
        section = TEXT.split(f"\n### `{context.command_path}`\n")[1].split("\n### ")[0].split("<!-- /reference")[0]
        assert f"| `{min(options(context) - {'--help'}, key=len)}" in section
    stale = TEXT.replace("| `--sweep` |", "| `--swoop` |")
    assert stale != TEXT
    assert written(stale) == TEXT


def test_the_table_of_the_zoo_is_the_zoos_own() -> None:
    assert zoo_table.written(TEXT) == TEXT, "run `python -m tests.zoo_table --write`"


def test_the_three_commands_are_shown() -> None:
    assert {"demo", "profile", "plan", "sample", "show"} <= {words[0] for words in typed()}


@pytest.mark.parametrize("words", [*typed()], ids=" ".join)
def test_command_lines_parse(words: list[str]) -> None:
    context = command().make_context("tstitch", list(words))
    name, sub, rest = context.command.resolve_command(context, list(words))
    assert sub.make_context(name, rest, parent=context).params


@pytest.mark.parametrize("words", [*mentioned()], ids=" ".join)
def test_what_is_mentioned_exists(words: list[str]) -> None:
    name = words[0] if not words[0].startswith("-") else "tstitch"
    assert name in CONTEXTS
    assert {word.partition("=")[0] for word in words if word.startswith("--")} <= options(CONTEXTS[name])


def test_options_in_running_text_exist() -> None:
    known = set().union(*map(options, CONTEXTS.values()))
    before = TEXT.partition("<!-- reference -->")[0]
    assert set(re.findall(r"`(--[\w-]+)`", before)) <= known


def test_links_and_pictures_lead_somewhere() -> None:
    targets = re.findall(r"\]\(([^)\s]+)\)", TEXT)
    own = [target for target in targets if not re.match(r"https?:", target)]
    headings = re.findall(r"^#+ (.*)", TEXT, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}
    assert any(target.endswith(".png") for target in own)
    lost = [t for t in own if not (t[1:] in anchors if t.startswith("#") else (ROOT / t.partition("#")[0]).exists())]
    assert lost == []


def test_the_table_of_exit_statuses_has_all_of_them() -> None:
    told = {int(number) for number in re.findall(r"^\| (\d+) \|", TEXT, re.MULTILINE)}
    assert told == {status.value for status in ExitStatus}


def test_ci_runs_the_test_command() -> None:
    shown = next(line for block in blocks("sh") for line in block.splitlines() if "pytest" in line and "pip" in line)
    assert shown in (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()


def test_the_zoo_file_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (block,) = blocks("yaml")
    (tmp_path / "zoo.yaml").write_text(block, encoding="utf-8")
    monkeypatch.setenv("TSTITCH_ZOO", str(tmp_path / "zoo.yaml"))
    zoo = Zoo.load()
    assert zoo.entries["my-sd"].source == f"folder:{tmp_path / 'models' / 'my-sd'}"
    assert zoo.entries["my-tiny-unet"].revision == "0123456789abcdef0123456789abcdef01234567"
    assert zoo.entries["my-tiny-unet"].subfolder == ""
    assert zoo.entries["my-tiny-unet"].parts == zoo.entries["my-sd"].source


def test_modules_and_scripts_that_are_run_exist() -> None:
    named = re.findall(r"python -m ((?:tests|tstitch_cli)[\w.]*)", TEXT)
    assert "tests.reference" in named
    places = {name: ROOT / name.replace(".", "/") for name in named}
    files = {name: (place.with_suffix(".py"), place / "__main__.py") for name, place in places.items()}
    assert [name for name, either in files.items() if not any(file.is_file() for file in either)] == []
