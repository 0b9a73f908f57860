"""Figures 3 and 11, by `tstitch analyze`'s own stage: similarity of the predictions, frequencies of the latents."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from tests.benchmarks.common import LARGE, SMALL
from tests.benchmarks.report.bench import Bench
from tests.benchmarks.report.figure import Figure, Verdict
from tests.benchmarks.report.studies import ALL
from tstitch_cli.analyze import ALIKE, Analysis, analyze
from tstitch_cli.plotting.analysis_plots import frequencies_png, similarity_png


def figures(bench: Bench) -> list[Figure]:
    """Both of them; their pictures are drawn here."""
    family = bench.studio.load(ALL, bench.setting)
    found = analyze(family, bench.scale.analysed, progress=lambda doing, share: None)
    shown = f"{bench.setting.words}; {bench.scale.analysed} pictures of seed 0."
    assert found.agreement is not None
    similarity_png(found.agreement, bench.setting.words, bench.out / "similarity.png", overwrite=True)
    frequencies_png(found, bench.out / "frequencies.png", overwrite=True)
    return [
        Figure(
            "similarity",
            "Figure 3: similarity of the predictions",
            f"Cosine similarity with {LARGE}'s predictions along its trajectories; bands are one standard deviation "
            f"over the pictures. {shown}",
            paper_shown="The paper's figure shows high similarity in the early steps that falls towards the last ones.",
            verdicts=similarity(found),
            table=_similarity_table(found),
            pictures=("similarity.png",),
        ),
        Figure(
            "frequencies",
            "Figure 11: frequencies of the latents",
            f"Radially averaged log-amplitude of the Fourier transform of the latents, a line a step, every model "
            f"alone; below, when a frequency is settled, and where the others differ from {LARGE}. {shown}",
            paper_shown="The paper says that early steps make low frequencies, and that the large model adds the high "
            "ones in the last steps.",
            verdicts=frequencies(found),
            pictures=("frequencies.png",),
        ),
    ]


def similarity(found: Analysis) -> tuple[Verdict, ...]:
    """Whether predictions are alike in the first 40 % of the steps, and least alike at the end."""
    assert found.agreement is not None
    told = []
    for name, close in found.agreement.denoisers.items():
        cosine = np.array(close.cosine)
        first = cosine[: round(0.4 * len(cosine))].min()
        told.append(
            Verdict(
                bool(first >= ALIKE and cosine[-1] <= cosine.min()),
                f"{name}: at least {first:.4f} in the first 40 % of the steps, {cosine[-1]:.4f} in the last step.",
            )
        )
    return tuple(told)


def _similarity_table(found: Analysis) -> tuple[tuple[str, ...], ...]:
    assert found.agreement is not None
    closeness = found.agreement.denoisers
    rows = [
        (str(step + 1), *(f"{close.cosine[step]:.4f} ± {close.cosine_std[step]:.4f}" for close in closeness.values()))
        for step in range(found.setting.taken)
    ]
    return (("step", *closeness), *rows)


def frequencies(found: Analysis) -> tuple[Verdict, ...]:
    """Whether low frequencies come first, and whether the small model differs late and in the high ones."""
    settled = found.spectra[LARGE].settled()
    small = np.array(found.spectra[SMALL].log_amplitude) - np.array(found.spectra[LARGE].log_amplitude)
    apart = np.abs(small)
    half = len(apart) // 2
    rings = apart.shape[1] // 2
    low, high = float(small[-1, :rings].mean()), float(small[-1, -rings:].mean())
    return (
        Verdict(
            all(a <= b for a, b in pairwise(settled)) and settled[0] < settled[-1],
            f"Low frequencies come first: from the lowest to the highest they are settled after step "
            f"{', '.join(map(str, settled))} of {found.setting.taken} ({LARGE}).",
        ),
        Verdict(
            bool(apart[:half].max() < apart[half:].max()),
            f"{SMALL} and {LARGE} differ late: log10 amplitudes by at most {apart[:half].max():.4f} in the first half "
            f"of the steps, {apart[half:].max():.4f} in the second.",
        ),
        Verdict(
            high < low,
            f"{SMALL} lacks high frequencies more than low ones at the end: {high:+.4f} against {low:+.4f} in log10 "
            "amplitude.",
        ),
    )
