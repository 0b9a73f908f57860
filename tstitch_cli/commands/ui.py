"""`tstitch ui`: a page in the browser that profiles, plans and draws."""

from __future__ import annotations

from typing import Annotated

import typer

from tstitch_cli.commands.edge import guarded, out, talk
from tstitch_cli.errors import UsageError

PORT = 7860


@guarded
def ui(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[DENOISER...]",
            help="Two or more, as `tstitch profile` takes them, offered before the zoo's families that are here.",
            show_default=False,
        ),
    ] = None,
    profile: Annotated[
        str | None, typer.Option(help="Plan by this profile (a file or a name) instead of measuring.")
    ] = None,
    max_time: Annotated[str, typer.Option(help="Measure a family for no longer than about this.")] = "30s",
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps, xpu; the best there is by default.")] = "auto",
    host: Annotated[str, typer.Option(help="Address to listen on; the default is reached from this machine alone.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes any that is free.", min=0, max=65535)] = PORT,
    offline: Annotated[bool, typer.Option("--offline", help="Fetch nothing from the hub: use what is here.")] = False,
    allow_stale: Annotated[
        bool, typer.Option("--allow-stale", help="Plan by a profile that was measured elsewhere or with other weights.")
    ] = False,
) -> None:
    """Show a page in the browser: choose a family, a prompt and a budget, and draw.

    A family is measured when it is chosen, and the profile kept in profiles/, where it is found the next time. The
    page is there until Ctrl-C. It needs the extra of this name.
    """
    import os
    import signal
    import tempfile
    from importlib.util import find_spec
    from pathlib import Path

    if find_spec("gradio") is None:
        from tstitch_cli.doctor import pip_install

        raise UsageError("the page needs Gradio, which is not installed", hint=pip_install('".[ui]"'))
    from tstitch_cli.quantities import parse_duration
    from tstitch_cli.ui.addresses import LOOPBACK, address_of, listening
    from tstitch_cli.ui.choices import offered
    from tstitch_cli.zoo.registry import Zoo

    if offline:
        from tstitch_cli.fetching import hub

        hub.go_offline()
    most_s = parse_duration(max_time)
    choices = offered(Zoo.load(), names or (), profile)
    with listening(host, port) as listener, tempfile.TemporaryDirectory(prefix="tstitch-ui-") as folder:
        # Read where Gradio is imported: it calls nobody, and its copies of files go where they are removed at the end.
        os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
        os.environ["GRADIO_TEMP_DIR"] = str(Path(folder) / "copies")
        from tstitch_cli.ui.page import Page
        from tstitch_cli.ui.server import serve
        from tstitch_cli.ui.session import Session

        session = Session(choices, Path(folder), device=device, max_time_s=most_s, allow_stale=allow_stale)
        page = Page(session)
        if host not in LOOPBACK:
            talk.print("[yellow]whoever reaches this address can draw with this machine: there is no password[/]")
        out.print(address_of(listener, host), markup=False)
        talk.print("open this address in a browser; Ctrl-C ends it")
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            serve(page, listener, host)
        finally:
            session.close()
