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
from tests.benchmarks.text.fractions import DISTANCE
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
from tstitch_cli.schema import Setting
from tstitch_cli.training.captioned import SEEN
from tstitch_cli.trajectory import Batch, Trajectory

CONTROL = "tiny-sd-outline"
STARTS = (BASE, SMALL)
PICTURED = (0.0, 0.3, 0.5, 1.0)
"""Shares on the sheet."""
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


@dataclass(frozen=True, eq=False)
class Steered:
    """Rows that begin with one denoiser and go on with the large one, by the share of the first; all steered."""

    first: str
    rows: Mapping[float, Allocation]
    found: Mapping[float, Drawn]
    own: Mapping[float, torch.Tensor]
    """(N,) agreements of the pictures with their outlines."""
    another: Mapping[float, torch.Tensor]
    """(N,) with another picture's."""

    @property
    def hits(self) -> dict[float, torch.Tensor]:
        """Whether each picture shows what its caption tells."""
        return {share: each.hits("alignment") for share, each in self.found.items()}


def figures(bench: Bench) -> list[Figure]:
    """Agreement with the outlines and alignment with the prompts, by the share of the first steps."""
    setting = bench.at(control=CONTROL)
    asked = outlines_of(bench, bench.scale.fewer)
    starts = [_steered(bench, first, asked, setting) for first in STARTS]
    prompts, given = tuple(bench.captions[SEEN][:SHOWN]), Outlined(lines=_pictures(asked[:SHOWN]))
    columns: dict[str, Pictures] = {"outline": given.lines}
    for each in starts:
        family = bench.studio.load((each.first, LARGE), setting)
        for share in PICTURED:
            name = f"{share:.0%} {each.first}" if share else LARGE
            if name not in columns:
                columns[name] = drawn(family, each.rows[share], prompts, given)
    figure = Figure(
        "outlines",
        "Figure 30: a ControlNet on outlines",
        f"{BASE} or {SMALL}, then {LARGE}, all steered by {CONTROL}, which was trained on {LARGE}; {setting.words}; "
        f"{bench.scale.fewer:,} pictures of each row. Captions and outlines are those of test pictures. Agreement is "
        "the F1 measure of the drawn with the asked outline, give or take a pixel.",
        "share of the first steps by the smaller",
        "agreement with the outline",
        (
            *(Line(f"{each.first}, then {LARGE}", _points(each.own)) for each in starts),
            Line(f"{BASE}, with another picture's outline", _points(starts[0].another)),
        ),
        paper_shown="The paper shows pictures of SDXL and SSD-1B with a ControlNet on edges, at 19.7 to 14.8 seconds "
        f"for 0 to 100 % by the small: all of them follow the edges. As SSD-1B is of SDXL, {BASE} is half of {LARGE}, "
        f"with all of its stages; {SMALL} lacks the innermost one, and with it a part of what the ControlNet adds.",
        verdicts=(
            follows(LARGE, starts[0].own[0.0], starts[0].another[0.0]),
            *(
                verdict
                for each in starts
                for verdict in (
                    follows(each.first, each.own[1.0], each.another[1.0]),
                    keeps_following(f"After {each.first}, outlines", each.own, each.another),
                    kept_up(f"After {each.first}, alignment", each.hits),
                )
            ),
        ),
        table=(
            ("first", "share of the steps", "agreement", "with another's outline", "alignment", DISTANCE),
            *((each.first, f"{share:.0%}", *_numbers(bench, each, share)) for each in starts for share in each.rows),
        ),
    )
    return [with_sheet(bench, figure, columns, prompts)]


def _points(agreements: Mapping[float, torch.Tensor]) -> tuple[Point, ...]:
    return tuple(Point.of(share, mean(each)) for share, each in agreements.items())


def _numbers(bench: Bench, steered: Steered, share: float) -> tuple[str, ...]:
    return (
        said(mean(steered.own[share]), 3),
        said(mean(steered.another[share]), 3),
        percent(part(steered.hits[share])),
        said(distance(steered.found[share].distances(bench.references[SEEN]))),
    )


def outlines_of(bench: Bench, count: int) -> torch.Tensor:
    """(count, 1, H, W): the outlines of the test pictures that the first captions are of."""
    pictures = bench.pictures(SEEN, False, count)
    return torch.cat([outlines(pictures.batch(some)) for some in torch.arange(count).split(bench.scale.at_once)])


def _pictures(asked: torch.Tensor) -> tuple[Image.Image, ...]:
    """White on black."""
    drawn = (255.0 * asked[:, 0]).to(torch.uint8).numpy()
    return tuple(Image.fromarray(each).convert("RGB") for each in drawn)


def _steered(bench: Bench, first: str, asked: torch.Tensor, setting: Setting) -> Steered:
    """What each row draws, and how nearly it follows the outlines `asked` (N, 1, H, W); both are kept."""
    family = bench.studio.load((first, LARGE), setting)
    rows = by_share(first, LARGE, SOME, setting.steps)
    size, count, counts = bench.scale.at_once, len(asked), evaluations_of(family)
    captions = bench.captions[SEEN]
    batches = []
    for start in range(0, count, size):
        indices = tuple(range(start, min(start + size, count)))
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
    own, another = ({share: keeper.agreement(words(row), batches)[:, i] for share, row in rows.items()} for i in (0, 1))
    return Steered(first, rows, found, own, another)


def follows(name: str, own: torch.Tensor, another: torch.Tensor) -> Verdict:
    """Whether the pictures of `name` alone follow their outlines rather than others: agreements (N,)."""
    return Verdict(
        _follows(own, another),
        f"{name} alone follows its outlines: the agreement is {said(mean(own), 3)}, with other pictures' outlines "
        f"{said(mean(another), 3)}.",
    )


def keeps_following(name: str, own: Mapping[float, torch.Tensor], another: Mapping[float, torch.Tensor]) -> Verdict:
    """Whether rows up to UP_TO follow as nearly as the large model alone, where that follows."""
    gains = {share: mean(own[share].double() - own[0.0].double()) for share in own if 0 < share <= UP_TO + 1e-9}
    worst = min(gains.values(), key=lambda each: each.value)
    least = min(own, key=lambda share: float(own[share].mean()))
    holds = all_of([no_worse(each) for each in gains.values()])
    return Verdict(
        holds if _follows(own[0.0], another[0.0]) else None,
        f"{name}: followed as nearly up to {UP_TO:.0%} of the steps, the agreement changes by {said(worst, 3)}; it is "
        f"least, {said(mean(own[least]), 3)}, at {least:.0%}.",
        FREE_START,
    )


def _follows(own: torch.Tensor, another: torch.Tensor) -> bool | None:
    return above(mean(own.double() - another.double()), MARGIN)
