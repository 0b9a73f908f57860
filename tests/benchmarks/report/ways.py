"""Ways of predicting which rows draw well, from the profile or from a few pictures, ranked by measured distances."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict

import numpy as np

from tests.benchmarks.common import LARGE
from tests.benchmarks.report.bench import Bench
from tests.benchmarks.report.engine import Study
from tests.benchmarks.report.figure import Figure, Verdict
from tests.benchmarks.report.measures import Floats, correlation_lead, rank_correlation
from tstitch_cli import files
from tstitch_cli.allocation import Allocation, expand, per_evaluation
from tstitch_cli.commands.edge import talk
from tstitch_cli.measuring import latents
from tstitch_cli.planning.objectives import compute_of
from tstitch_cli.quality.records import key
from tstitch_cli.schema import Agreement, Measured, Profile
from tstitch_cli.trajectory import Batch

PICTURES = 16
"""Of seed 0, by whose final latents every row is compared with the large model."""
KEPT = "sum of weighted differences, as `tstitch plan` predicts"
DRAWN = f"distance of the final latents from {LARGE}'s, {PICTURES} pictures drawn"


def figure(bench: Bench, study: Study, profile: Profile, distances: Floats, shown: str) -> Figure:
    """All ways, best first; `distances` (1 + RESAMPLES, rows) are `measures.resampled` of the rows of `study`."""
    assert profile.agreement is not None
    from_profile = added(profile.agreement, study.allocations)
    drawn = deviation(bench, study, profile.evaluations_per_step()).mean(axis=1)
    compute = np.array([-compute_of(profile, row) for row in study.allocations])
    predicted = {**from_profile, DRAWN: drawn, "less compute, nothing measured": compute}
    ranks = {way: rank_correlation(each.tolist(), distances) for way, each in predicted.items()}
    leads = {
        way: correlation_lead(predicted[KEPT].tolist(), each.tolist(), distances)
        for way, each in predicted.items()
        if way != KEPT
    }
    ordered = sorted(ranks, key=lambda way: -ranks[way].value)
    rows = [(way, _said(ranks[way]), _said(leads[way]) if way in leads else "") for way in ordered]
    return Figure(
        "ways",
        "Ways of predicting",
        f"Spearman's rank correlation of what is predicted with the measured Fréchet distance. {shown} A difference is "
        f"that of a step's prediction from {LARGE}'s, along {LARGE}'s trajectories of seed 0; its weight is how far an "
        "error in it moves the final latent.",
        verdicts=(
            best_kept(ranks, leads, list(from_profile)),
            Verdict(
                _ahead(leads[DRAWN]),
                f"It ranks rows better than the {DRAWN}: the difference is {_said(leads[DRAWN])}.",
            ),
        ),
        table=(("prediction", "rank correlation", "by how much the kept way leads"), *rows),
    )


def added(agreement: Agreement, rows: Sequence[Allocation]) -> dict[str, Floats]:
    """(rows,) predictions by every way of adding up a row's differences over its steps."""
    others = {name: np.array(close.rms) for name, close in agreement.denoisers.items()}
    none = np.zeros_like(next(iter(others.values())))
    taken = [expand(row) for row in rows]
    # (rows, P, T): the difference of whoever takes the step.
    apart = np.stack(
        [np.stack([others.get(name, none)[:, t] for t, name in enumerate(each)], axis=1) for each in taken]
    )
    weighed = apart * np.array(agreement.weights)
    return {
        KEPT: weighed.sum(axis=2).mean(axis=1),
        "root of summed squares of weighted differences": np.sqrt((weighed**2).sum(axis=2).mean(axis=1)),
        "sum of differences without weights": apart.sum(axis=2).mean(axis=1),
        "root of summed squares of differences without weights": np.sqrt((apart**2).sum(axis=2).mean(axis=1)),
    }


def deviation(bench: Bench, study: Study, counts: Sequence[int]) -> Floats:
    """(rows, PICTURES): how far each row's final latents are from the large model's; kept, as all that is drawn.

    `counts` (T,) are the evaluations of each step.
    """
    family = bench.studio.load(study.denoisers, study.setting)
    decides = {"setting": asdict(study.setting), "weights": family.weights, "rows": study.allocations, "of": PICTURES}
    path = bench.studio.work / "deviation" / f"{key(decides)}.npy"
    if not path.is_file():
        talk.print(f"final latents of {len(study.allocations)} rows, {PICTURES} pictures each")
        batch = Batch(family.example_prompts(PICTURES), tuple(range(PICTURES)))
        alone = latents.final(family, batch, study.denoisers[-1])
        found = [
            latents.distance(latents.final(family, batch, per_evaluation(row, counts)), alone)
            for row in study.allocations
        ]
        content = io.BytesIO()
        np.save(content, np.stack(found))
        files.write(path, content.getvalue(), overwrite=True)
    read: Floats = np.load(path)
    return read


def best_kept(ranks: Mapping[str, Measured], leads: Mapping[str, Measured], among: Sequence[str]) -> Verdict:
    """Whether the way that is kept ranks best `among` those that need nothing but the profile."""
    best = max(among, key=lambda way: ranks[way].value)
    rivals = [leads[way] for way in among if way != KEPT]
    agrees = True if all(lead.low > 0 for lead in rivals) else False if any(lead.high < 0 for lead in rivals) else None
    if best == KEPT:
        closest = min(rivals, key=lambda lead: lead.value)
        words = f"ranks best of those from the profile alone; it leads the next by {_said(closest)}."
    else:
        lead = leads[best]
        behind = Measured(-lead.value, -lead.high, -lead.low)
        words = f"is behind the {best}, the best of those from the profile alone, by {_said(behind)}."
    return Verdict(agrees, f"The {KEPT}, {words}")


def _ahead(lead: Measured) -> bool | None:
    return True if lead.low > 0 else False if lead.high < 0 else None


def _said(found: Measured) -> str:
    return f"{found.value:.3f} ({found.low:.3f} to {found.high:.3f})"
