"""What the page does, without the page: on bundled models whose calls are short, or long enough to be stopped."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from tests.builders import measured
from tests.quick import PICTURES, QUICK, SLOW, slow_profile, zoo_file
from tests.toys import sd_folders
from tstitch_cli import documents, provenance
from tstitch_cli.app import app
from tstitch_cli.denoisers import EXAMPLES
from tstitch_cli.errors import InfeasibleError, StaleError, UsageError
from tstitch_cli.schema import Setting
from tstitch_cli.ui.choices import offered
from tstitch_cli.ui.session import Known, Session
from tstitch_cli.ui.stopping import StoppedError, Turns
from tstitch_cli.zoo.registry import Zoo

ME = "me"


class Told:
    """What was told while something ran."""

    def __init__(self) -> None:
        self.doing: list[str] = []
        self.shares: list[float] = []
        self.begun = threading.Event()

    def __call__(self, doing: str, share: float) -> None:
        self.doing.append(doing)
        self.shares.append(share)
        self.begun.set()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The current folder, in which the quick family is measured and the slow one's profile is another machine's."""
    path = tmp_path_factory.mktemp("page")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path)
        patch.setenv("TSTITCH_ZOO", str(zoo_file(path / "zoo.yaml")))
        slow_profile(path)
        yield path


@pytest.fixture(scope="module")
def session(folder: Path) -> Session:
    return started(folder, allow_stale=True)


@pytest.fixture(scope="module")
def quick(session: Session) -> Known:
    told = Told()
    known = session.prepare(QUICK, ME, told)
    assert any("round" in doing or "measur" in doing or "warm" in doing for doing in told.doing), told.doing
    return known


@pytest.fixture(scope="module")
def another(quick: Known, folder: Path) -> Session:
    """One that was started later, beside `session`."""
    return started(folder)


def started(folder: Path, *, allow_stale: bool = False) -> Session:
    choices = offered(Zoo.load(), ["quick-s", "quick-xl"])
    downloads = folder / "downloads"
    return Session(choices, downloads, device="cpu", max_time_s=0.5, allow_stale=allow_stale)


def test_a_chosen_family_is_measured_and_its_profile_kept(quick: Known, folder: Path, session: Session) -> None:
    (path,) = (folder / "profiles").glob("*quick*.yaml")
    assert quick.path == path.relative_to(folder)
    assert documents.read_profile(path) == quick.profile
    assert quick.profile.origin == "measured"
    assert quick.classes
    assert quick.examples[:2] == ("t-shirt", "trouser")
    began = path.stat().st_mtime_ns
    assert session.prepare(QUICK, "somebody else", Told()) == quick
    assert path.stat().st_mtime_ns == began


def test_it_is_found_the_next_time_and_measured_again_when_asked(quick: Known, another: Session) -> None:
    told = Told()
    assert another.prepare(QUICK, ME, told).profile == quick.profile
    assert "warming up" in told.doing
    content = quick.path.read_bytes()
    again = another.prepare(QUICK, ME, told, again=True)
    try:
        assert again.profile.created != quick.profile.created
        assert documents.read_profile(quick.path) == again.profile
    finally:
        quick.path.write_bytes(content)


def test_every_budget_of_the_slider_has_a_row(quick: Known, session: Session) -> None:
    least, most = session.plan(QUICK, quick.least_s), session.plan(QUICK, quick.most_s)
    assert least.rows[least.chosen].steps == {"quick-s": 4, "quick-xl": 0}
    assert most.rows[most.chosen].steps == {"quick-s": 0, "quick-xl": 4}
    with pytest.raises(InfeasibleError, match="no allocation fits the budget"):
        session.plan(QUICK, quick.least_s - 2 * quick.step_s)
    assert 0 < quick.step_s <= quick.most_s / 100


def test_the_plan_is_that_of_the_command(quick: Known, session: Session, folder: Path) -> None:
    budget = (quick.least_s + quick.most_s) / 2
    path = session.plan_file(session.plan(QUICK, budget), ME)
    given = ("plan", "--profile", str(quick.path), "--budget", f"{budget:.6g}s", "--out", "typed.yaml")
    assert CliRunner().invoke(app, given).exit_code == 0
    typed = documents.read_plan(folder / "typed.yaml")
    assert documents.read_plan(path) == replace(typed, rivals=())


def test_a_picture_has_the_bytes_that_sample_writes_for_its_plan(quick: Known, session: Session, folder: Path) -> None:
    budget, told = 0.6 * quick.least_s + 0.4 * quick.most_s, Told()
    drawing = session.draw(QUICK, budget, "ankle boot", 7, ME, told)
    plan = session.plan_file(drawing.plan, ME)
    given = ("sample", "--plan", str(plan), "--prompt", "ankle boot", "--seed", "7", "--count", str(PICTURES))
    result = CliRunner().invoke(app, (*given, "--out", "typed"))
    assert result.exit_code == 0, result.output
    assert [path.name for path in drawing.paths] == [f"{i:06d}.png" for i in range(PICTURES)]
    for path in drawing.paths:
        assert path.read_bytes() == (folder / "typed" / path.name).read_bytes()
    made = provenance.read(drawing.paths[0])
    assert (made.prompt, made.seed) == ("ankle boot", 7)
    assert made.allocation == drawing.plan.rows[drawing.plan.chosen].allocation
    assert f"predicted {drawing.plan.rows[drawing.plan.chosen].time_s.mean:.3f} s" in drawing.said[0]
    assert told.doing[0] == "drawing"


def test_words_that_a_family_does_not_know_are_told_beside_its_picture(folder: Path) -> None:
    entries = [Zoo.shipped().entries[name] for name in ("tiny-sd-small", "tiny-sd")]
    made = measured(4, (0.001, 0.005))
    denoisers = tuple(
        replace(each, name=entry.name, source=entry.source, embedding="tiny-sd")
        for each, entry in zip(made.denoisers, entries, strict=True)
    )
    setting = Setting(4, "ddim", 3.0, 1, 64, "float32", "cpu")
    profile = replace(made, denoisers=denoisers, setting=setting, validation=(), fingerprint=None)
    documents.write_profile(profile, folder / "text.yaml", overwrite=False)
    (choice, *_) = offered(Zoo.load(), profile=str(folder / "text.yaml"))
    session = Session([choice], folder / "text downloads", allow_stale=True)
    most_s = session.prepare(choice.label, ME, Told()).most_s
    plain, unknown, long = (
        session.draw(choice.label, most_s, prompt, 0, ME, Told()).said
        for prompt in ("a red bag", "a red dinosaur", "a red bag " * 9)
    )
    assert "does not know" not in " ".join(plain)
    assert "does not know 'dinosaur'" in unknown[-1]
    assert "is left out" in long[-1]


def test_the_next_drawing_of_the_same_visitor_replaces_the_files(quick: Known, session: Session) -> None:
    first, other = (session.draw(QUICK, quick.least_s, "bag", 0, owner, Told()) for owner in ("first", "other"))
    second = session.draw(QUICK, quick.least_s, "bag", 0, "first", Told())
    assert not first.paths[0].exists()
    assert second.paths[0].read_bytes() == other.paths[0].read_bytes()
    session.leave("other")
    assert not other.paths[0].exists()
    assert second.paths[0].exists()


def test_whoever_has_no_name_takes_nobodys_files_along(quick: Known, session: Session) -> None:
    kept = session.plan_file(session.plan(QUICK, quick.most_s), ME)
    hexadecimal = ME.encode().hex()
    for owner in ("", ".", "..", "/", hexadecimal, kept.parent.name, "\ud800", "x" * 10_000):
        assert session.plan_file(session.plan(QUICK, quick.most_s), owner) != kept
        session.leave(owner)
        assert kept.exists()


def test_the_sweep_is_one_sheet(quick: Known, session: Session) -> None:
    told = Told()
    path = session.sweep(QUICK, quick.least_s, "sneaker", 0, ME, told)
    with Image.open(path) as sheet:
        assert sheet.size[0] > 11 * 64
    assert told.shares == sorted(told.shares)


@pytest.mark.parametrize(
    ("prompt", "seed", "what"),
    [
        ("sneakr", 0, "quick has no class 'sneakr'"),
        ("", 0, "quick has no class ''"),
        ("bag", -1, "the seed '-1' is no whole number"),
        ("bag", 0.5, "the seed '0.5' is no whole number"),
        ("bag", None, "the seed '' is no whole number"),
        ("bag", 2**63, "is no whole number from 0 to"),
        ("bag", "1" * 5000, "is no whole number from 0 to"),
        ("x" * 20_001, 0, "has 20,001 characters"),
    ],
)
def test_what_cannot_be_drawn_is_told(quick: Known, session: Session, prompt: str, seed: object, what: str) -> None:
    with pytest.raises(UsageError, match=what):
        session.draw(QUICK, quick.most_s, prompt, seed, ME, Told())
    with pytest.raises(UsageError, match=what):
        session.sweep(QUICK, quick.most_s, prompt, seed, ME, Told())


def test_nothing_is_planned_before_it_is_measured(session: Session, folder: Path) -> None:
    with pytest.raises(UsageError, match="has not been measured"):
        started(folder).draw(QUICK, 1.0, "bag", 0, ME, Told())
    with pytest.raises(UsageError, match="is no family of this page"):
        session.prepare("../../etc/passwd", ME, Told())


def test_a_profile_of_another_machine_is_refused(folder: Path) -> None:
    with pytest.raises(StaleError, match="the plan does not hold here: device was cpu"):
        started(folder).prepare(SLOW, ME, Told())


def test_drawing_stops_between_two_steps_and_draws_the_same_afterwards(quick: Known, session: Session) -> None:
    before = session.draw(QUICK, quick.least_s, "bag", 1, "first", Told()).paths[0].read_bytes()
    slow = session.prepare(SLOW, ME, Told())
    told, ended = Told(), []

    def drawing() -> None:
        try:
            session.draw(SLOW, slow.most_s, "bag", 0, ME, told)
        except StoppedError as error:
            ended.append(error)

    thread = threading.Thread(target=drawing)
    thread.start()
    assert told.begun.wait(60)
    waiting = threading.Thread(target=lambda: session.prepare(QUICK, "waiting", Told()))
    waiting.start()
    assert not session.stop("somebody else")
    assert thread.is_alive()
    began = time.monotonic()
    assert session.stop(ME)
    thread.join(10)
    assert ended
    assert time.monotonic() - began < 5
    assert max(told.shares) < 1
    waiting.join(60)
    assert not session.stop(ME)
    assert session.draw(QUICK, quick.least_s, "bag", 1, ME, Told()).paths[0].read_bytes() == before


def test_measuring_stops_too(quick: Known, another: Session) -> None:
    def tell(doing: str, share: float) -> None:
        if share > 0:
            another.stop(ME)

    with pytest.raises(StoppedError):
        another.prepare(QUICK, ME, tell, again=True)
    assert documents.read_profile(quick.path) == quick.profile


def test_turns_are_taken_one_by_one_and_those_who_wait_can_be_stopped() -> None:
    turns, seen = Turns(), list[str]()

    def visit(owner: str) -> None:
        try:
            with turns.mine(owner):
                seen.append(owner)
        except StoppedError:
            seen.append(f"{owner} stopped")

    with turns.mine("first"):
        threads = [threading.Thread(target=visit, args=(owner,)) for owner in ("second", "third")]
        for thread in threads:
            thread.start()
        while not turns.stop("second"):
            time.sleep(0.01)
        assert seen == []
    for thread in threads:
        thread.join(5)
    assert sorted(seen) == ["second stopped", "third"]
    assert not turns.stop()


def test_a_family_of_prompts_is_drawn_from_sentences(tmp_path: Path) -> None:
    root = sd_folders(tmp_path)
    entries = Zoo.load().resolve_all([str(root / "small"), str(root / "large")])
    made = measured(4, (0.01, 0.03))
    denoisers = tuple(
        replace(each, name=entry.name, source=entry.source, embedding="large")
        for each, entry in zip(made.denoisers, entries, strict=True)
    )
    setting = Setting(4, "ddim", 7.5, PICTURES, 16, "float32", "cpu")
    profile = replace(made, denoisers=denoisers, setting=setting, validation=(), fingerprint=None)
    documents.write_profile(profile, tmp_path / "text.yaml", overwrite=False)
    (choice,) = offered(Zoo({}), profile=str(tmp_path / "text.yaml"))
    session = Session([choice], tmp_path / "downloads", allow_stale=True)
    known = session.prepare(choice.label, ME, Told())
    assert not known.classes
    assert known.examples == EXAMPLES
    drawing = session.draw(choice.label, known.most_s, "a red fox in the snow", 3, ME, Told())
    assert [provenance.read(path).prompt for path in drawing.paths] == ["a red fox in the snow"] * PICTURES
