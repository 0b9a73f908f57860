"""The page's handlers without a browser: what each changes, and that no failure leaves one as an exception."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest
from PIL import Image

from tests.quick import PICTURES, QUICK, SLOW, slow_profile, zoo_file
from tstitch_cli import documents
from tstitch_cli.ui.choices import offered
from tstitch_cli.ui.page import Page, Updates
from tstitch_cli.ui.session import Drawing, Session
from tstitch_cli.ui.stopping import StoppedError
from tstitch_cli.zoo.registry import Zoo

REQUEST: Any = SimpleNamespace(session_hash="me")
BUDGET_S = 0.5


def quiet(*share: object, **doing: object) -> None:
    """A progress bar that nobody looks at."""


PROGRESS: Any = quiet


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """The slow family's profile is there, so nothing is measured."""
    folder = tmp_path_factory.mktemp("page")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("TSTITCH_ZOO", str(zoo_file(folder / "zoo.yaml")))
        slow_profile(folder)
        choices = offered(Zoo.load(), ["slow-s", "slow-xl"])
        yield Page(Session(choices, folder / "downloads", device="cpu", max_time_s=0.5, allow_stale=True))


@pytest.fixture(scope="module")
def chosen(page: Page) -> Updates:
    return page.on_change(SLOW, REQUEST) | page.on_choose(SLOW, REQUEST, PROGRESS)


def test_a_chosen_family_sets_slider_and_prompts(page: Page, chosen: Updates) -> None:
    assert chosen[page.message] == ""
    slider = chosen[page.budget]
    assert slider.minimum <= slider.value <= slider.maximum
    assert slider.interactive
    assert chosen[page.draw].interactive
    assert slider.label == f"Budget: seconds for a call of {PICTURES} pictures"
    assert chosen[page.prompt].value == "t-shirt"
    assert "name of a class" in chosen[page.prompt].label
    assert ["sneaker"] in chosen[page.examples].raw_samples
    assert "1000 steps of ddim" in chosen[page.about]
    assert 'id="chosen"' in chosen[page.plot]
    assert "slow-xl" in chosen[page.row]


def test_the_marker_and_the_rows_name_follow_the_budget(page: Page, chosen: Updates) -> None:
    slider = chosen[page.budget]
    least, most = (page.on_budget(SLOW, end, REQUEST) for end in (slider.minimum, slider.maximum))
    assert "999 steps of slow-s, then 1 of slow-xl" in least[page.row]
    assert "1,000 steps of slow-xl" in most[page.row]
    assert 'id="chosen"' in least[page.plot]
    assert least[page.plot] != most[page.plot]
    assert page.session.plan(SLOW, slider.maximum) == documents.read_plan(Path(most[page.plan_file].value["path"]))


def test_what_is_wrong_is_said_and_changes_nothing_else(page: Page, chosen: Updates) -> None:
    for handler in (page.on_draw, page.on_sweep):
        changed = handler(SLOW, 50.0, "sneakr", 0, None, REQUEST, PROGRESS)
        assert list(changed) == [page.message]
        assert "error: slow has no class &#x27;sneakr&#x27;" in changed[page.message]
        assert "hint: did you mean sneaker?" in changed[page.message]
    (said,) = page.on_budget(SLOW, 1e-6, REQUEST).values()
    assert "error: no allocation fits the budget" in said
    (said,) = page.on_draw(QUICK, BUDGET_S, "bag", 0, None, REQUEST, PROGRESS).values()
    assert "has not been measured" in said


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (StoppedError(), "stopped"),
        (MemoryError(), "ran out of memory"),
        (KeyError("x"), "bug: KeyError: &#x27;x&#x27;"),
    ],
)
def test_no_exception_reaches_gradio(page: Page, monkeypatch: pytest.MonkeyPatch, error: Exception, said: str) -> None:
    def failing(*args: object, **kwargs: object) -> None:
        raise error

    for name in ("prepare", "plan", "draw", "sweep"):
        monkeypatch.setattr(page.session, name, failing)
    assert said in page.on_choose(SLOW, REQUEST, PROGRESS)[page.message]
    for changed in (
        page.on_again(SLOW, REQUEST, PROGRESS),
        page.on_budget(SLOW, BUDGET_S, REQUEST),
        page.on_draw(SLOW, BUDGET_S, "bag", 0, None, REQUEST, PROGRESS),
        page.on_sweep(SLOW, BUDGET_S, "bag", 0, None, REQUEST, PROGRESS),
    ):
        assert list(changed) == [page.message]
        assert said in changed[page.message]


def test_of_a_family_that_is_left_nothing_stays(page: Page, chosen: Updates) -> None:
    with page.session._turns.mine("me") as passing:
        changed = page.on_change(SLOW, REQUEST)
        with pytest.raises(StoppedError):
            passing()
    assert changed[page.row] == changed[page.plot] == changed[page.about] == changed[page.times] == ""
    for control in (page.budget, page.draw, page.sweep, page.plan_file, page.png):
        assert not changed[control].interactive
    assert list(page.on_choose("nobody's", REQUEST, PROGRESS)) == [page.message]


@pytest.mark.parametrize(("prompt", "seed", "same"), [("bag", 0, True), ("coat", 0, False), ("bag", 1, False)])
def test_pictures_and_a_sweep_of_something_else_are_not_shown_together(
    page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prompt: str, seed: int, same: bool
) -> None:
    file = tmp_path / "000000.png"
    Image.new("RGB", (8, 8)).save(file)
    drawing = Drawing(page.session.plan(SLOW, 50.0), (file,), ("it took a second",))
    monkeypatch.setattr(page.session, "draw", lambda *given: drawing)
    monkeypatch.setattr(page.session, "sweep", lambda *given: file)
    drawn = page.on_draw(SLOW, 50.0, "bag", 0, None, REQUEST, PROGRESS)
    swept = page.on_sweep(SLOW, 50.0, prompt, seed, drawn[page.subject], REQUEST, PROGRESS)
    assert swept[page.sheet].visible
    if same:
        assert not {page.pictures, page.png, page.times} & set(swept)
    else:
        assert not swept[page.pictures].value
        assert not swept[page.png].interactive
        assert swept[page.times] == ""
    redrawn = page.on_draw(SLOW, 50.0, "bag", 0, swept[page.subject], REQUEST, PROGRESS)
    assert len(redrawn[page.pictures].value) == 1
    assert (page.sheet not in redrawn) == same
    assert same or not redrawn[page.sheet].visible


def test_stop_tells_whether_anything_ran(page: Page) -> None:
    assert "there was nothing to stop" in page.on_stop(REQUEST)[page.message]


@pytest.mark.parametrize("index", [-1, 2, None, "0", [0]])
def test_only_a_picture_that_was_drawn_is_offered(page: Page, index: object) -> None:
    event: Any = SimpleNamespace(index=index)
    assert page.on_select(("a.png", "b.png"), event) == gr.skip()
    event.index = 1
    assert page.on_select(("a.png", "b.png"), event).value["orig_name"] == "b.png"
