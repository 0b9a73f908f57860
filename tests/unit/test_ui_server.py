"""What the server of the page tells in the terminal."""

from __future__ import annotations

import logging
import traceback

import pytest

from tstitch_cli.ui.server import in_a_line


def fail() -> None:
    """As Gradio and uvicorn tell of what they cannot answer."""
    try:
        raise ValueError("[red]\x1b[31mno number\nas was posted" + "!" * 500)
    except ValueError:
        traceback.print_exc()
        logging.getLogger("uvicorn.error").exception("Exception in ASGI application\n")


def test_a_request_that_is_not_answered_is_a_line(capfd: pytest.CaptureFixture[str]) -> None:
    before = traceback.print_exc
    with in_a_line():
        fail()
        logging.getLogger("uvicorn.error").error("no port")
    assert traceback.print_exc is before
    said = capfd.readouterr().err
    assert said.count("a request was not answered: ValueError: [red]") == 2
    assert "Traceback" not in said
    assert "posted" not in said
    assert "\x1b[31m" not in said


def test_who_looks_for_a_fault_of_ours_sees_all(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TSTITCH_TRACEBACK", "1")
    with in_a_line():
        fail()
    assert "Traceback" in capfd.readouterr().err
