"""Figure 30: a ControlNet on outlines steers all denoisers, by fractions of the steps."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from tests.benchmarks.common import words
from tests.benchmarks.report.engine import SEED, evaluations_of
from tests.benchmarks.report.figure import Figure, Line, Point, Verdict
from tests.benchmarks.report.measures import distance
from tests.benchmarks.text.bench import BASE, LARGE, SMALL, Bench, Drawn, by_share
from tests.benchmarks.text.fractions import DISTANCE, SHARE
from tests.benchmarks.text.rules import FREE_START, MARGIN, UP_TO, above, all_of, kept_up, no_worse, part, percent, said
from tests.benchmarks.text.scale import SOME
from tests.benchmarks.text.sheet import Pictures, drawn, with_sheet
from tstitch_cli import files
from tstitch_cli.allocation import Allocation, per_evaluation
from tstitch_cli.denoisers import Family
from tstitch_cli.inputs import Given
from tstitch_cli.quality.drawing import Drawing, pixels
from tstitch_cli.quality.outlines import outline_agreement, outlines
from tstitch_cli.quality.records import Records, key
from tstitch_cli.quality.statistics import mean
from tstitch_cli.training.captioned import SEEN
from tstitch_cli.trajectory import Batch, Trajectory

CONTROL = "tiny-sd-outline"
SHOWN = 6
"""Outlines on the sheet."""


@dataclass(frozen=True)
class Outlined(Given):
    """An outline for each picture of a batch."""

    lines: tuple[Image.Image, ...] = ()

    def arguments(self, count: int) -> dict[str, Any]:
        """See `Given`."""
        return {"image": list(self.lines)}


@dataclass(frozen=True)
class Followed:
    """Keeps how nearly pictures follow their own outline, and that of the next picture of their batch.

    The latter is what pictures that follow none would come to.
    """

    family: Family
    folder: Path
    asked: torch.Tensor
    """(N, 1, H, W): the outline of every picture."""

    def has(self, name: str, batch: Batch) -> bool:
        """See `drawing.Keeper`."""
        return self._path(name, batch).is_file()

    def keep(self, name: str, batch: Batch, trajectory: Trajectory) -> None:
        """See `drawing.Keeper`."""
        shown, asked = pixels(trajectory.images) / 127.5 - 1.0, self.asked[list(batch.indices)]
        both = torch.stack([outline_agreement(shown, each) for each in (asked, asked.roll(1, 0))], 1)
        content = io.BytesIO()
        np.save(content, both.numpy())
        files.write(self._path(name, batch), content.getvalue(), overwrite=True)

    def agreement(self, name: str, batches: Sequence[Batch]) -> torch.Tensor:
        """(N, 2) in [0, 1]: with its own outline, and with another."""
        return torch.cat([torch.from_numpy(np.load(self._path(name, batch))) for batch in batches])

    def _path(self, name: str, batch: Batch) -> Path:
        decides = {
            "row": name,
            "setting": asdict(self.family.setting),
            "weights": self.family.weights,
            "indices": batch.indices,
        }
        return self.folder / f"{key(decides)}.npy"


def figures(bench: Bench) -> list[Figure]:
    """Agreement with the outlines and alignment with the prompts, by the share of the steps."""
    setting = bench.at(control=CONTROL)
    family = bench.studio.load((SMALL, LARGE), setting)
    rows = by_share(SMALL, LARGE, SOME, setting.steps)
    asked = outlines_of(bench, bench.scale.fewer)
    found, followed = _drawn(bench, family, rows, asked)
    own = {share: each[:, 0] for share, each in followed.items()}
    another = {share: each[:, 1] for share, each in followed.items()}
    alone = {1.0: ((BASE, setting.steps),)}
    between, between_followed = _drawn(bench, bench.studio.load((BASE, LARGE), setting), alone, asked)
    prompts, given = tuple(bench.captions[SEEN][:SHOWN]), Outlined(lines=_pictures(asked[:SHOWN]))
    columns: dict[str, Pictures] = {"outline": given.lines}
    columns |= {f"{share:.0%} small": drawn(family, row, prompts, given) for share, row in rows.items()}
    hits = {share: each.hits("alignment") for share, each in found.items()}
    figure = Figure(
        "outlines",
        "Figure 30: a ControlNet on outlines",
        f"{SMALL}, then {LARGE}, and {BASE} alone, all steered by {CONTROL}, trained on {LARGE}; {setting.words}; "
        f"{bench.scale.fewer:,} pictures of each row. Captions and outlines are those of test pictures. Agreement is "
        "the F1 measure of the drawn with the asked outline, give or take a pixel.",
        SHARE,
        "agreement with the outline",
        (
            Line("with its outline", tuple(Point.of(share, mean(each)) for share, each in own.items())),
            Line("with another's outline", tuple(Point.of(share, mean(each)) for share, each in another.items())),
        ),
        paper_shown="The paper shows pictures of SDXL and SSD-1B with a ControlNet on edges, at 19.7 to 14.8 seconds "
        "for 0 to 100 % by the small: all of them follow the edges.",
        verdicts=(
            follows(LARGE, own[0.0], another[0.0]),
            follows(BASE, *between_followed[1.0].unbind(1)),
            follows(SMALL, own[1.0], another[1.0]),
            keeps_following(own, another),
            kept_up("Steered, alignment", hits),
        ),
        table=(
            ("steps by the small", "agreement", "with another's outline", "alignment", DISTANCE),
            *(_numbers(bench, f"{share:.0%}", each, followed[share]) for share, each in found.items()),
            _numbers(bench, f"{BASE} alone", between[1.0], between_followed[1.0]),
        ),
    )
    return [with_sheet(bench, figure, columns, prompts)]


def _numbers(bench: Bench, name: str, made: Drawn, followed: torch.Tensor) -> tuple[str, ...]:
    """A line of the table; `followed` (N, 2): with its own outline, and with another."""
    return (
        name,
        *(said(mean(each), 3) for each in followed.unbind(1)),
        percent(part(made.hits("alignment"))),
        said(distance(made.distances(bench.references[SEEN]))),
    )


def outlines_of(bench: Bench, count: int) -> torch.Tensor:
    """(count, 1, H, W): the outlines of the test pictures that the first captions are of."""
    pictures = bench.pictures(SEEN, False, count)
    return torch.cat([outlines(pictures.batch(some)) for some in torch.arange(count).split(bench.scale.at_once)])


def _pictures(asked: torch.Tensor) -> tuple[Image.Image, ...]:
    """White on black."""
    drawn = (255.0 * asked[:, 0]).to(torch.uint8).numpy()
    return tuple(Image.fromarray(each).convert("RGB") for each in drawn)


def _drawn(
    bench: Bench, family: Family, rows: Mapping[float, Allocation], asked: torch.Tensor
) -> tuple[dict[float, Drawn], dict[float, torch.Tensor]]:
    """What each row draws, and (N, 2) how nearly it follows the outlines; both are kept."""
    size, count, counts = bench.scale.at_once, len(asked), evaluations_of(family)
    captions = bench.captions[SEEN]
    batches = []
    for first in range(0, count, size):
        indices = tuple(range(first, min(first + size, count)))
        given = Outlined(lines=_pictures(asked[list(indices)]))
        batches.append(Batch(tuple(captions[i] for i in indices), indices, SEED, given=given))
    # Records do not tell which outlines there were.
    folder = bench.studio.work / "outlines" / key(asked.flatten(1).nonzero().tolist())
    keeper = Followed(family, folder, asked)
    drawing = Drawing(
        family,
        {words(row): per_evaluation(row, counts) for row in rows.values()},
        batches,
        bench.studio.extractor,
        None,
        Records(folder),
        keeper,
        bench.studio.telling("outlines"),
    )
    drawing.draw()
    found = {share: Drawn(drawing.described(words(row)), bench.metrics) for share, row in rows.items()}
    return found, {share: keeper.agreement(words(row), batches) for share, row in rows.items()}


def follows(name: str, own: torch.Tensor, another: torch.Tensor) -> Verdict:
    """Whether the pictures of `name` alone follow their outlines rather than others: agreements (N,)."""
    return Verdict(
        _follows(own, another),
        f"{name} alone follows its outlines: the agreement is {said(mean(own), 3)}, with other pictures' outlines "
        f"{said(mean(another), 3)}.",
    )


def keeps_following(own: Mapping[float, torch.Tensor], another: Mapping[float, torch.Tensor]) -> Verdict:
    """Whether rows up to UP_TO follow as nearly as the large model alone, where that follows."""
    gains = {share: mean(own[share].double() - own[0.0].double()) for share in own if 0 < share <= UP_TO + 1e-9}
    worst = min(gains.values(), key=lambda each: each.value)
    least = min(own, key=lambda share: float(own[share].mean()))
    holds = all_of([no_worse(each) for each in gains.values()])
    return Verdict(
        holds if _follows(own[0.0], another[0.0]) else None,
        f"Outlines are followed as nearly up to {UP_TO:.0%} of the steps: the agreement changes by {said(worst, 3)}; "
        f"it is least, {said(mean(own[least]), 3)}, at {least:.0%}.",
        FREE_START,
    )


def _follows(own: torch.Tensor, another: torch.Tensor) -> bool | None:
    return above(mean(own.double() - another.double()), MARGIN)
