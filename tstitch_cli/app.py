"""The `tstitch` command: its subcommands, and nothing heavy, so that help and completion answer at once."""

from __future__ import annotations

import io
import sys
from typing import Annotated

import typer

from tstitch_cli.commands.analyze import analyze
from tstitch_cli.commands.convert import convert
from tstitch_cli.commands.demo import demo
from tstitch_cli.commands.doctor import doctor
from tstitch_cli.commands.evaluate import evaluate
from tstitch_cli.commands.fetch import fetch
from tstitch_cli.commands.finetune import finetune
from tstitch_cli.commands.plan import plan
from tstitch_cli.commands.profile import profile
from tstitch_cli.commands.sample import sample
from tstitch_cli.commands.show import show
from tstitch_cli.commands.train import train
from tstitch_cli.commands.ui import ui
from tstitch_cli.commands.verify import verify
from tstitch_cli.commands.zoo import zoo

app = typer.Typer(
    name="tstitch",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Draw diffusion pictures within a time budget by stitching a small and a large model's trajectories.",
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"tstitch {version('tstitch')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


app.command("demo")(demo)
app.command("profile")(profile)
app.command("plan")(plan)
app.command("sample")(sample)
app.command("ui")(ui)
app.command("verify")(verify)
app.command("evaluate")(evaluate)
app.command("show")(show)
app.command("analyze")(analyze)
app.command("zoo")(zoo)
app.command("fetch")(fetch)
app.command("convert")(convert)
app.command("train")(train)
app.command("finetune")(finetune)
app.command("doctor")(doctor)


def main() -> None:
    """Runs the command line."""
    # What the terminal's encoding has not, such as a prompt in another script, is escaped; it is no reason to fail.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    app()


if __name__ == "__main__":
    main()
