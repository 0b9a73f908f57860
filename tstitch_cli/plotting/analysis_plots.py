"""An analysis as pictures: the similarity of the predictions step by step, and the frequencies of the latents."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tstitch_cli.analyze import SETTLED, Analysis
from tstitch_cli.plotting import canvas
from tstitch_cli.plotting.canvas import plain
from tstitch_cli.schema import Agreement

COLOURS = ("#2b6cb0", "#1a7f4b", "#b7791f", "#805ad5", "#c0392b")
TITLE = 10


def similarity_png(agreement: Agreement, setting: str, path: Path, *, overwrite: bool = False) -> None:
    """Draws figure 3 of the paper: cosine similarity with the largest denoiser's predictions, by step.

    Bands are one standard deviation over the pictures. Raises BadFileError where the file cannot be written.
    """
    figure = canvas.blank()
    axes = figure.add_subplot()
    for colour, (name, close) in zip(_colours(len(agreement.denoisers)), agreement.denoisers.items(), strict=True):
        steps, cosine, std = np.arange(1, len(close.cosine) + 1), np.array(close.cosine), np.array(close.cosine_std)
        axes.plot(steps, cosine, marker="o", markersize=3, color=colour, label=plain(name))
        axes.fill_between(steps, cosine - std, np.minimum(cosine + std, 1.0), color=colour, alpha=0.18, linewidth=0)
    axes.set_xlabel("step, noisiest first")
    axes.set_ylabel(plain(f"cosine similarity with {agreement.largest}"))
    axes.set_title(plain(setting), fontsize=TITLE)
    canvas.tidy(axes)
    axes.legend(fontsize=9)
    canvas.save(figure, path, overwrite=overwrite)


def frequencies_png(analysis: Analysis, path: Path, *, overwrite: bool = False) -> None:
    """Draws figure 11 of the paper: for every denoiser the log-amplitude of its latents by frequency, a line a step.

    Below, when each frequency is settled, and for every denoiser but the largest how much stronger (red) or weaker
    (blue) than the largest's its latents are, by step and frequency. Raises BadFileError where the file cannot be
    written.
    """
    from matplotlib import colormaps

    spectra, x = analysis.spectra, np.array(analysis.frequencies)
    others = [name for name in spectra if name != analysis.largest]
    figure = canvas.blank(4.0 * len(spectra), 7.6)
    grid = figure.subplots(2, len(spectra), squeeze=False)
    for axes, (name, spectrum) in zip(grid[0], spectra.items(), strict=True):
        lines = np.array(spectrum.log_amplitude)
        for step, line in enumerate(lines):
            axes.plot(x, line, color=colormaps["viridis"](step / (len(lines) - 1)), linewidth=1.2)
        axes.sharey(grid[0][0])
        axes.set_title(plain(name), fontsize=TITLE)
        axes.set_xlabel("cycles per latent pixel")
        canvas.tidy(axes)
    grid[0][0].set_ylabel("log10 amplitude of the latents")
    scale = _scale(colormaps["viridis"], 0, len(lines) - 1)
    figure.colorbar(scale, ax=grid[0], label="steps done", shrink=0.8)
    _settled(grid[1][0], analysis)
    final = np.array(spectra[analysis.largest].log_amplitude)
    differences = {name: np.array(spectra[name].log_amplitude) - final for name in others}
    most = max((float(np.abs(values).max()) for values in differences.values()), default=0.0) or 1e-6
    for axes, (name, values) in zip(grid[1][1:], differences.items(), strict=True):
        extent = (-0.5, len(values) - 0.5, x[0] - x[1] / 2, x[-1] + x[1] / 2)
        axes.imshow(values.T, origin="lower", aspect="auto", cmap="coolwarm", vmin=-most, vmax=most, extent=extent)
        axes.set_title(plain(f"{name} minus {analysis.largest}"), fontsize=TITLE)
        axes.set_xlabel("steps done")
        axes.set_ylabel("cycles per latent pixel")
    if differences:
        scale = _scale(colormaps["coolwarm"], -most, most)
        figure.colorbar(scale, ax=grid[1], label="difference of log10 amplitude", shrink=0.8)
    canvas.save(figure, path, overwrite=overwrite)


def _settled(axes: Any, analysis: Analysis) -> None:
    count = len(analysis.spectra)
    for i, (colour, (name, spectrum)) in enumerate(zip(_colours(count), analysis.spectra.items(), strict=True)):
        # Lines that lie on each other are seen all the same: each is thinner than the one before.
        width = 1.4 * (count - i)
        axes.plot(analysis.frequencies, spectrum.settled(), linewidth=width, color=colour, label=plain(name))
    axes.set_xlabel("cycles per latent pixel")
    axes.set_ylabel("step")
    axes.set_title(f"when a frequency is settled (coherence with the end {SETTLED})", fontsize=TITLE - 1)
    canvas.tidy(axes)
    axes.legend(fontsize=8)


def _scale(colours: Any, low: float, high: float) -> Any:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    return ScalarMappable(Normalize(low, high), colours)


def _colours(count: int) -> list[str]:
    return [COLOURS[i % len(COLOURS)] for i in range(count)]
