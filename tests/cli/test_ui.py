"""`tstitch ui` as it is used: started as a process, in headless Chromium, and asked what it must not answer."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from PIL import Image
from playwright.sync_api import Browser, Locator, expect, sync_playwright
from playwright.sync_api import Page as Tab
from typer.testing import CliRunner

from tests.quick import PICTURES, QUICK, SLOW, slow_profile, zoo_file
from tstitch_cli import documents, provenance
from tstitch_cli.app import app
from tstitch_cli.commands.plan import in_words
from tstitch_cli.quality import captions
from tstitch_cli.quality.drawing import pixels
from tstitch_cli.quality.features import ClassifierFeatures

ROOT = Path(__file__).parents[2]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)
"""A browser that runs as root in a container, and asks nobody anything of its own accord."""
LONG_MS = 90_000
"""The longest that anything may take on a busy machine."""


@dataclass
class Served:
    """A running `tstitch ui`, and the folder it was started in."""

    process: subprocess.Popen[str]
    url: str
    folder: Path


@dataclass
class Watched:
    """A tab of the browser, and what it asked for and complained of."""

    tab: Tab
    asked: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def __getitem__(self, name: str) -> Locator:
        return self.tab.locator(f"#{name}")


@contextmanager
def serving(folder: Path, *given: str, zoo: Path | None = None) -> Iterator[Served]:
    """`tstitch ui` with these arguments on this machine's processor, started in `folder`."""
    told = {"PYTHONPATH": str(ROOT), "TMPDIR": str(folder)} | ({"TSTITCH_ZOO": str(zoo)} if zoo is not None else {})
    command = [sys.executable, "-m", "tstitch_cli.app", "ui", *given, "--port", "0", "--device", "cpu"]
    process = subprocess.Popen(
        command, cwd=folder, env={**os.environ, **told}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stderr is not None
    url = process.stdout.readline().strip()
    assert url.startswith("http://127.0.0.1:"), process.stderr.read()
    try:
        yield Served(process, url, folder)
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """With the quick and the slow family; the page of most tests."""
    folder = tmp_path_factory.mktemp("page")
    slow_profile(folder)
    given = ("quick-s", "quick-xl", "--max-time", "1s", "--allow-stale")
    with serving(folder, *given, zoo=zoo_file(folder / "zoo.yaml")) as started:
        yield started


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed (Debian's package: chromium)")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=list(QUIET))
        yield started
        started.close()


@contextmanager
def watching(browser: Browser, url: str) -> Iterator[Watched]:
    """A new tab that shows what is at `url`."""
    context = browser.new_context(viewport={"width": 1400, "height": 1000}, accept_downloads=True)
    context.set_default_timeout(LONG_MS)
    found = Watched(context.new_page())
    found.tab.on("request", lambda request: found.asked.append(request.url))
    found.tab.on("websocket", lambda socket: found.asked.append(socket.url))
    found.tab.on("pageerror", lambda error: found.complaints.append(str(error)))
    found.tab.goto(url)
    try:
        yield found
    finally:
        context.close()


@pytest.fixture
def watched(served: Served, browser: Browser) -> Iterator[Watched]:
    with watching(browser, served.url) as found:
        yield found


def snapshot(watched: Watched, name: str) -> None:
    """A picture of the page for people, where TSTITCH_SCREENSHOTS names a folder."""
    if folder := os.environ.get("TSTITCH_SCREENSHOTS"):
        watched.tab.screenshot(path=Path(folder) / f"{name}.png", full_page=True)


def test_a_person_measures_plans_draws_downloads_and_stops(served: Served, watched: Watched, tmp_path: Path) -> None:
    page = watched
    # Whoever chooses another family while the first is measured gets that one, and nothing is drawn before.
    expect(page["draw"]).to_be_disabled(timeout=LONG_MS)
    expect(page["plot"]).to_contain_text(re.compile("loading|warming|rounds?"), timeout=LONG_MS)
    choose(page, SLOW)
    expect(page["about"]).to_contain_text("1000 steps of ddim", timeout=LONG_MS)
    choose(page, QUICK)
    expect(page["about"]).to_contain_text("4 steps of ddim", timeout=LONG_MS)
    expect(page["row"]).to_contain_text("its predicted loss is", timeout=LONG_MS)
    expect(page["prompt"].locator("textarea")).to_have_value("t-shirt")
    snapshot(page, "measured")

    # The slider moves the marker along the front and names another row.
    slider, marker = page["budget"].locator("input[type=range]"), page["plot"].locator("#chosen use")
    seen = set()
    for end, steps in (("min", "4 steps of quick-s"), ("max", "4 steps of quick-xl")):
        slider.fill(str(slider.get_attribute(end)))
        expect(page["row"].locator(".chosen")).to_contain_text(steps, timeout=LONG_MS)
        box = marker.bounding_box()
        assert box is not None
        seen.add((round(box["x"]), round(box["y"])))
    (left, low), (right, high) = sorted(seen)
    assert right > left + 100
    assert high < low - 50
    snapshot(page, "budget")

    # An example is taken, drawn, and its times are told.
    page["examples"].get_by_text("sneaker", exact=True).click()
    expect(page["prompt"].locator("textarea")).to_have_value("sneaker")
    page["seed"].locator("input").fill("5")
    page["draw"].click()
    expect(page["times"]).to_contain_text(re.compile(r"a call took .* predicted .* budget"), timeout=LONG_MS)
    pictures = page["pictures"].locator("img")
    expect(pictures).to_have_count(PICTURES)
    for picture in pictures.all():
        assert picture.evaluate("image => image.decode().then(() => image.naturalWidth)") == 32
    snapshot(page, "drawn")

    # Plan and picture are downloaded, and are those that `tstitch sample` writes.
    for name in ("plan-file", "png"):
        with page.tab.expect_download() as download:
            page[name].click()
        download.value.save_as(tmp_path / download.value.suggested_filename)
    plan = documents.read_plan(tmp_path / "plan.yaml")
    assert in_words(plan.rows[plan.chosen]) == "4 steps of quick-xl"
    given = ("sample", "--plan", str(tmp_path / "plan.yaml"), "--prompt", "sneaker", "--seed", "5", "--allow-stale")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TSTITCH_ZOO", str(served.folder / "zoo.yaml"))
        result = CliRunner().invoke(app, (*given, "--count", str(PICTURES), "--out", str(tmp_path / "typed")))
    assert result.exit_code == 0, result.output
    assert (tmp_path / "000000.png").read_bytes() == (tmp_path / "typed" / "000000.png").read_bytes()
    assert provenance.read(tmp_path / "000000.png").prompt == "sneaker"
    # Another picture is downloaded once it is chosen.
    pictures.nth(1).click()
    with page.tab.expect_download() as download:
        page["png"].click()
    assert download.value.suggested_filename == "000001.png"

    page["sweep"].click()
    sheet = page["sheet"].locator("img")
    expect(sheet).to_be_visible(timeout=LONG_MS)
    assert sheet.evaluate("image => image.decode().then(() => image.naturalWidth)") > 11 * 64
    expect(pictures.first).to_be_visible()
    snapshot(page, "sweep")
    # Pictures of another prompt take its place.
    page["prompt"].locator("textarea").fill("bag")
    page["draw"].click()
    expect(sheet).to_have_count(0, timeout=LONG_MS)
    expect(pictures).to_have_count(PICTURES)
    # And a sweep of yet another one takes theirs.
    page["prompt"].locator("textarea").fill("coat")
    page["sweep"].click()
    expect(sheet).to_be_visible(timeout=LONG_MS)
    expect(pictures).to_have_count(0)

    # What is wrong is told as the command line tells it.
    page["prompt"].locator("textarea").fill("sneakr")
    page["draw"].click()
    expect(page["message"].get_by_role("alert")).to_contain_text("error: quick has no class 'sneakr'", timeout=LONG_MS)
    expect(page["message"]).to_contain_text("hint: did you mean sneaker?")
    snapshot(page, "error")

    # A call of a thousand steps is stopped, and the next one is drawn.
    choose(page, SLOW)
    expect(page["about"]).to_contain_text("1000 steps of ddim", timeout=LONG_MS)
    expect(page["row"]).to_contain_text("slow-xl", timeout=LONG_MS)
    page["draw"].click()
    expect(page["pictures"]).to_contain_text(re.compile("drawing"), timeout=LONG_MS)
    snapshot(page, "drawing")
    page["stop"].click()
    expect(page["message"]).to_contain_text("stopped", timeout=LONG_MS)
    choose(page, QUICK)
    expect(page["about"]).to_contain_text("4 steps of ddim", timeout=LONG_MS)
    page["draw"].click()
    expect(page["times"]).to_contain_text("a call took", timeout=LONG_MS)

    # Whoever leaves leaves nothing behind.
    assert list(served.folder.glob("tstitch-ui-*/*/plan.yaml"))
    page.tab.close()
    within(60, lambda: not list(served.folder.glob("tstitch-ui-*/*/plan.yaml")))

    elsewhere = [url for url in page.asked if not url.startswith((served.url, "data:", "blob:"))]
    assert elsewhere == []
    assert page.complaints == []


def test_a_sentence_is_drawn_by_the_family_that_the_page_opens_with(browser: Browser, here: Path) -> None:
    sentence = "a green t-shirt on a pink background"
    # Ten steps, for those of the default setting would take most of a minute to measure.
    short = ("--steps", "10", "--scheduler", "ddim", "--device", "cpu", "--max-time", "1s", "--out", "short.yaml")
    result = CliRunner().invoke(app, ("profile", "tiny-sd-small", "tiny-sd-base", "tiny-sd", *short))
    assert result.exit_code == 0, result.output

    with serving(here, "--profile", "short.yaml") as served, watching(browser, served.url) as page:
        expect(page["family"].locator("input")).to_have_value("tiny-sd: tiny-sd-small, tiny-sd-base, tiny-sd")
        expect(page["about"]).to_contain_text("10 steps of ddim", timeout=LONG_MS)
        slider = page["budget"].locator("input[type=range]")
        slider.fill(str(slider.get_attribute("max")))
        expect(page["row"].locator(".chosen")).to_contain_text("10 steps of tiny-sd ", timeout=LONG_MS)
        page["prompt"].locator("textarea").fill(sentence)
        page["draw"].click()
        expect(page["times"]).to_contain_text(re.compile(r"a call took .* predicted .* budget"), timeout=LONG_MS)
        snapshot(page, "sentence")
        # What is downloaded is what is shown.
        shown = page["pictures"].locator("img").first.get_attribute("src")
        assert shown is not None
        with page.tab.expect_download() as download:
            page["png"].click()
        download.value.save_as(here / "picture.png")
        assert page.tab.request.get(shown).body() == (here / "picture.png").read_bytes()
        assert page.complaints == []

    assert provenance.read(here / "picture.png").prompt == sentence
    with Image.open(here / "picture.png") as picture:
        seen = ClassifierFeatures("tiny-sd")(pixels([picture])).answers
    assert {name: int(answer) for name, answer in seen.items() if name != "style"} == captions.told(sentence)


def choose(page: Watched, family: str) -> None:
    page["family"].locator("input").click()
    page.tab.get_by_role("option", name=family).click()


def within(seconds: float, true: Callable[[], bool]) -> None:
    """Waits until something is true."""
    began = time.monotonic()
    while not true():
        assert time.monotonic() - began < seconds
        time.sleep(0.2)


def answered(
    url: str, *, host: str | None = None, origin: str | None = None, body: bytes | None = None
) -> tuple[int, dict[str, str], str]:
    """Status, headers and text of what is answered."""
    given = {"Host": host, "Origin": origin, "Content-Type": "application/json" if body else None}
    headers = {name: value for name, value in given.items() if value is not None}
    request = urllib.request.Request(url, data=body, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, dict(response.headers.items()), response.read().decode("utf-8", "replace")
    except urllib.error.HTTPError as error:
        return error.code, dict(error.headers.items()), error.read().decode("utf-8", "replace")


def test_it_answers_its_own_page_alone(served: Served) -> None:
    status, headers, text = answered(served.url)
    assert status == 200
    # The page names nobody else to load from, and a browser would ask nobody else.
    loaded = re.findall(r"<(?:script|link|img|iframe)[^>]*?(?:src|href)=[\"']([^\"']+)", text)
    assert loaded
    assert {urlsplit(url).netloc for url in loaded} <= {"", urlsplit(served.url).netloc}
    assert "default-src 'self'" in headers["content-security-policy"]
    # No file is read that the page did not make.
    for path in ("zoo.yaml", "profiles", "../zoo.yaml", "/etc/passwd"):
        for named in (path, str(served.folder / path)):
            status, _, text = answered(f"{served.url}/gradio_api/file={named}")
            assert status in (403, 404), text
            assert "schema" not in text
            assert "root:" not in text
    # It is reached by no other name, and at no other address.
    assert answered(served.url, host="evil.example")[0] == 400
    assert answered(served.url, host=f"localhost:{urlsplit(served.url).port}")[0] == 200
    # A browser that shows another page asks nothing of it for that one, even where it needs no answer.
    asked = f"{served.url}/gradio_api/queue/join"
    events = json.loads(answered(f"{served.url}/config")[2])["dependencies"]
    nothing_needed = next(event["id"] for event in events if not event["inputs"])
    body = json.dumps({"data": [], "fn_index": nothing_needed, "session_hash": "other"}).encode()
    for origin in ("http://evil.example", "null", "http://localhost:1", served.url.replace("127.0.0.1", "localhost")):
        assert answered(asked, origin=origin, body=body)[0] == 403, origin
    for own in (served.url, None):
        assert answered(asked, origin=own, body=body)[0] == 200
    port = f"{urlsplit(served.url).port:04X}"
    listening = [
        line.split()[1]
        for table in ("tcp", "tcp6")
        if (file := Path("/proc/net") / table).exists()
        for line in file.read_text().splitlines()[1:]
        if line.split()[3] == "0A" and line.split()[1].endswith(f":{port}")
    ]
    assert listening in ([], [f"0100007F:{port}"])


def test_a_port_in_use_is_told(served: Served) -> None:
    result = CliRunner().invoke(app, ["ui", "--port", str(urlsplit(served.url).port)])
    assert result.exit_code == 2
    assert "cannot be shown at 127.0.0.1" in result.output
    assert "give another --port" in result.output


def test_without_gradio_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    result = CliRunner().invoke(app, ["ui"])
    assert result.exit_code == 2
    assert 'hint: pip install -c constraints.txt ".[ui]"  # in your clone of tstitch' in result.output


def test_an_unknown_denoiser_is_told_before_anything_is_loaded() -> None:
    result = CliRunner().invoke(app, ["ui", "fashion-xxl", "fashion-s"])
    assert result.exit_code == 2
    assert "there is no denoiser 'fashion-xxl'" in result.output


def test_nonsense_is_told_in_a_line_and_ctrl_c_ends_it_and_leaves_no_file(served: Served) -> None:
    for number, path, status in ((0, "run/predict", 500), (9999, "run/predict", 500), (9999, "queue/join", 500)):
        body = json.dumps({"data": [], "fn_index": number, "session_hash": "other"}).encode()
        assert answered(f"{served.url}/gradio_api/{path}", body=body)[0] == status
    assert list(served.folder.glob("tstitch-ui-*"))
    served.process.send_signal(signal.SIGINT)
    _, said = served.process.communicate(timeout=60)
    assert served.process.returncode == 130
    assert "interrupted" in said
    assert "Traceback" not in said
    assert "a request was not answered: ValueError: An event handler (on_change) didn't receive enough" in said
    assert said.count("a request was not answered: KeyError: 9999") == 2
    assert list(served.folder.glob("tstitch-ui-*")) == []
