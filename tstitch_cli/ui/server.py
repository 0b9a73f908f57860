"""Serves the page on one address, and keeps what a browser loads for it to that address."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from typing import Any

import gradio as gr
import uvicorn
from fastapi import FastAPI, Request
from fastapi.middleware.trustedhost import TrustedHostMiddleware
from fastapi.responses import PlainTextResponse

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


def serve(page: Page, listener: socket.socket, host: str) -> None:
    """Answers until the process is told to end (Ctrl-C, SIGTERM), which raises KeyboardInterrupt."""
    config = uvicorn.Config(app(page, host), log_level="error", timeout_graceful_shutdown=PATIENCE_S)
    uvicorn.Server(config).run(sockets=[listener])


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
