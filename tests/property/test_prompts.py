"""Prompts of any length and script become pictures that tell them, or are refused before anything is drawn."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from tests import toys
from tests.unit.test_provenance import MADE
from tstitch_cli import provenance
from tstitch_cli.clocks import HostClock
from tstitch_cli.commands import show
from tstitch_cli.commands.edge import tell
from tstitch_cli.commands.terminal import SafeConsole, printable
from tstitch_cli.denoisers import Family, load
from tstitch_cli.errors import UsageError
from tstitch_cli.images import save_picture
from tstitch_cli.provenance import MAX_PROMPT, Provenance
from tstitch_cli.sample import Work, write
from tstitch_cli.schema import PlannedDenoiser, Setting
from tstitch_cli.trajectory import Batch, run
from tstitch_cli.zoo.folders import from_folder

SCRIPTS = {
    "Latin": "a red fox in the snow",
    "Arabic": "ثعلب أحمر في الثلج",
    "Hebrew with vowels": "שׁוּעָל אָדֹם",
    "Devanagari": "बर्फ में लाल लोमड़ी",
    "Chinese": "雪中的红狐狸",
    "Korean": "눈 속의 붉은 여우",
    "emoji, joined": "👨‍👩‍👧‍👦🦊🏳️‍🌈",
    "stacked marks": "f" + "̴" * 300 + "ox",
    "turned around": "fox ‮xof⁦",
    "NUL": "a\0b",
    "escapes": "\x1b[2J\x1b]0;owned\a\r\b",
    "lines": "one\ntwo\r\nthree\u2028four\x85",
    "markup": "[bold red]fox[/] [link=file:///etc]x[/link] {0} %s",
    "nothing": " ",
    "the longest": "🦊" * MAX_PROMPT,
}
unicode = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Family:
    folders = toys.sd_folders(tmp_path_factory.mktemp("models"))
    entries = [from_folder(folders / name) for name in ("small", "large")]
    return load(entries, Setting(2, "ddim", 7.5, 1, 16, "float32", "cpu"))


def drawn(family: Family, prompt: str, folder: Path) -> Provenance:
    denoisers = tuple(PlannedDenoiser(entry.name, entry.source, None) for entry in family.entries)
    work = Work(denoisers, family.setting, ((1, 2),), (("small", 1), ("large", 1)))
    batch = Batch((prompt,), (0,), negative_prompt=prompt)
    (path,) = write(family, work, batch, run(family, batch, work.turns(), HostClock()), folder, overwrite=True)
    return provenance.read(path)


@pytest.mark.parametrize("script", SCRIPTS)
def test_any_script_is_drawn_and_told(family: Family, script: str, tmp_path: Path) -> None:
    prompt = SCRIPTS[script]
    provenance.refuse_untellable([prompt])
    made = drawn(family, prompt, tmp_path)
    assert (made.prompt, made.negative_prompt) == (prompt, prompt)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(prompt=unicode)
@example(prompt="")
def test_any_text_is_drawn_and_told(family: Family, prompt: str, tmp_path: Path) -> None:
    assert drawn(family, prompt, tmp_path).prompt == prompt


@pytest.mark.parametrize("prompt", ["a" * 1_000_000, "a" * (MAX_PROMPT + 1), "\ud800", "fox\udcff"])
def test_what_no_picture_can_tell_is_refused(prompt: str) -> None:
    with pytest.raises(UsageError) as caught:
        provenance.refuse_untellable(["a fox", prompt])
    assert len(caught.value.message) < 200
    assert caught.value.message.isprintable()


@given(text=st.text(max_size=100))
@example("\x1b[31m\x9b31m\x07\r‮")
def test_no_text_steers_the_terminal(text: str) -> None:
    console = SafeConsole(file=io.StringIO(), soft_wrap=True, highlight=False, markup=False)
    console.print(text)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert not {c for c in shown if c != "\n" and not (c.isprintable() or c.isspace())}
    assert "\x1b" not in shown
    assert "\r" not in shown
    shown.encode()


def test_a_fault_is_told_without_the_control_sequences_of_what_is_at_fault(capsys: pytest.CaptureFixture[str]) -> None:
    tell(UsageError("no \x1b[2J\x07 such \udcff thing [bold]x[/]", hint="‮ try"))
    told = capsys.readouterr().err
    assert told == "error: no \\x1b[2J such \\udcff thing [bold]x[/]\n  hint: \\u202e try\n"


@given(prompt=unicode)
def test_show_prints_every_prompt_on_one_line(prompt: str) -> None:
    facts = show._facts(replace(MADE, prompt=prompt))
    shown = printable(facts[0][1])
    assert not {c for c in shown if not (c.isprintable() or c.isspace())}
    assert len(shown.splitlines()) <= 1


def test_the_longest_prompts_fit_into_a_picture(tmp_path: Path) -> None:
    longest = "\U0010ffff" * MAX_PROMPT
    made = replace(MADE, prompt=longest, negative_prompt=longest)
    save_picture(tmp_path / "a.png", Image.new("L", (2, 2)), made, overwrite=False)
    assert provenance.read(tmp_path / "a.png") == made
