"""An empty picture to plot on, and how it becomes a PNG file or SVG: the same data give the same bytes."""

from __future__ import annotations

import warnings
from io import BytesIO
from pathlib import Path
from typing import Any

from tstitch_cli import files

PIXELS_PER_INCH = 200


def blank(width: float = 8.0, height: float = 5.0) -> Any:
    """A matplotlib figure of this many inches, without pyplot: no window system, no global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=PIXELS_PER_INCH, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def tidy(axes: Any) -> None:
    """A light grid, and no frame at the top and to the right."""
    axes.grid(True, alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def save(figure: Any, path: Path, *, overwrite: bool) -> None:
    """Writes `figure` as a PNG.

    Raises:
        BadFileError: the file exists and `overwrite` is false, or it cannot be written.
    """
    # Without matplotlib's version in the file, equal data give equal bytes.
    files.write(path, _saved(figure, "png", {"Software": None}), overwrite=overwrite)


def svg(figure: Any) -> str:
    """`figure` as an SVG element, to stand in a page; its text stays text."""
    from matplotlib import rc_context

    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "tstitch"}):
        content = _saved(figure, "svg", {"Date": None, "Creator": None}).decode("utf-8")
    return content[content.index("<svg") :]


def _saved(figure: Any, form: str, metadata: dict[str, None]) -> bytes:
    content = BytesIO()
    with warnings.catch_warnings():
        # A name in a script that the font lacks is drawn as boxes; that is no news for the terminal.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(content, format=form, metadata=metadata)
    return content.getvalue()


def plain(text: str) -> str:
    """Text as it is: matplotlib would take dollar signs for mathematics."""
    return text.replace("$", r"\$")
