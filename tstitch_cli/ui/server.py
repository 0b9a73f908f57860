"""Serves the page on one address, and keeps what a browser loads for it to that address."""

from __future__ import annotations

import logging
import os
import socket
import sys
import traceback
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import gradio as gr
import uvicorn
from fastapi import FastAPI, Request
from fastapi.middleware.trustedhost import TrustedHostMiddleware
from fastapi.responses import PlainTextResponse

from tstitch_cli.commands.edge import talk
from tstitch_cli.ui.addresses import LOOPBACK
from tstitch_cli.ui.page import STYLE, Page, theme

POLICY = "; ".join(
    (
        "default-src 'self'",
        # Gradio's page has scripts and styles in it, and makes functions of its templates.
        "script-src 'self' 'unsafe-inline' 'unsafe-eval'",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "font-src 'self' data:",
        "frame-ancestors 'none'",
        "form-action 'self'",
        "base-uri 'self'",
    )
)
"""A browser asks nobody else for anything, whatever Gradio's page names."""
PATIENCE_S = 1
"""Seconds that open pages are given when the server ends; they keep a connection open all the time."""
_WIDEST = 160
"""Characters that are told of an error, which may have in it what somebody posted."""


def serve(page: Page, listener: socket.socket, host: str) -> None:
    """Answers until the process is told to end (Ctrl-C, SIGTERM), which raises KeyboardInterrupt."""
    config = uvicorn.Config(app(page, host), log_level="error", timeout_graceful_shutdown=PATIENCE_S)
    with in_a_line():
        uvicorn.Server(config).run(sockets=[listener])


@contextmanager
def in_a_line() -> Iterator[None]:
    """While inside, a request that Gradio or uvicorn cannot answer is told in a line, not by its traceback.

    Whoever reaches the page can post nonsense; what fails of ours is told on the page. TSTITCH_TRACEBACK=1 leaves all
    as it is.
    """
    if os.environ.get("TSTITCH_TRACEBACK"):
        yield
        return
    before, log = traceback.print_exc, logging.getLogger("uvicorn.error")
    log.addFilter(_told)
    setattr(traceback, "print_exc", lambda *given, **named: _tell(sys.exception()))  # noqa: B010
    try:
        yield
    finally:
        setattr(traceback, "print_exc", before)  # noqa: B010
        log.removeFilter(_told)


def _told(record: logging.LogRecord) -> bool:
    """Whether uvicorn is to log this: nothing with an exception, which is told here."""
    if record.exc_info:
        _tell(record.exc_info[1])
    return not record.exc_info


def _tell(error: BaseException | None) -> None:
    said = next(iter(str(error).strip().splitlines()), "")[:_WIDEST]
    talk.print(f"a request was not answered: {type(error).__name__}: {said}", style="yellow", markup=False)


def app(page: Page, host: str) -> FastAPI:
    """The page as an application: nothing in it comes from another address, and no other site can reach it."""
    outer = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    @outer.middleware("http")
    async def keeping_to_itself(request: Request, answer: Callable[[Request], Awaitable[Any]]) -> Any:
        origin, here = request.headers.get("origin"), request.headers.get("host")
        if origin not in (None, f"http://{here}", f"https://{here}"):
            response: Any = PlainTextResponse("this page answers to no other", 403)
        else:
            response = await answer(request)
        response.headers["Content-Security-Policy"] = POLICY
        response.headers["Referrer-Policy"] = "same-origin"  # with none, browsers keep the page's own origin back
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response

    if host in LOOPBACK:
        # A site whose name is made to mean this machine would otherwise be taken for this page.
        outer.add_middleware(TrustedHostMiddleware, allowed_hosts=list(LOOPBACK))
    return gr.mount_gradio_app(
        outer,
        page.blocks,
        path="/",
        theme=theme(),
        css=STYLE,
        footer_links=[],
        run_history=False,
        show_error=False,
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        max_file_size=1,
        allowed_paths=[],
    )
