"""What the page does, without the page: families are measured, budgets planned for, pictures drawn, all of it stopped.

Whoever looks at the page is an owner, told apart by a name. All of them share the machine, one family in its memory
at a time, and what was measured.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import ceil, floor, log10
from pathlib import Path

from tstitch_cli import documents, files
from tstitch_cli.clocks import Clock, clock_for
from tstitch_cli.commands.drawing import SWEEP, refuse, report
from tstitch_cli.commands.fetch import fetch_missing
from tstitch_cli.commands.profile import default_path
from tstitch_cli.commands.sweeping import sheet_of
from tstitch_cli.denoisers import Family, load
from tstitch_cli.errors import UsageError
from tstitch_cli.images import sheet_png, write_png
from tstitch_cli.inputs import NOTHING, blank
from tstitch_cli.jobs.prompts import Prompt
from tstitch_cli.jobs.request import Request
from tstitch_cli.plan import make_plan
from tstitch_cli.planning.orders import SMALL_TO_LARGE
from tstitch_cli.planning.refined_row import with_refined
from tstitch_cli.profile import Effort, measure
from tstitch_cli.quantities import parse_budget
from tstitch_cli.sample import Order, draw_each, entries_of, identify, sweep, warm_up, work_of
from tstitch_cli.schema import MAX_SEED, Plan, Profile, Setting
from tstitch_cli.trajectory import Batch
from tstitch_cli.ui.choices import Choice
from tstitch_cli.ui.stopping import Passing, PassingClock, Turns
from tstitch_cli.zoo.words import remark_on

Tell = Callable[[str, float], None]
"""Told what runs now and which share of it, in [0, 1], is done."""
EXAMPLES = 12
"""Prompts that are offered."""
TELLING_S = 0.1
"""Seconds between two tellings of the steps of a call, which are not to slow it."""


@dataclass(frozen=True)
class Known:
    """A family that is measured: all that the page shows of it before anything is drawn."""

    profile: Profile
    path: Path
    digest: str
    classes: bool
    """Whether a prompt is the name of a class."""
    examples: tuple[str, ...]
    least_s: float
    """The smallest budget, that of the fastest row."""
    most_s: float
    """The largest that changes anything, that of the largest denoiser alone."""
    step_s: float


@dataclass(frozen=True)
class Drawing:
    """One call that was drawn by the chosen row of `plan`."""

    plan: Plan
    paths: tuple[Path, ...]
    said: tuple[str, ...]
    """Predicted against actual time, and what follows, in rich's markup."""


@dataclass(frozen=True)
class _Loaded:
    """What is in memory."""

    label: str
    family: Family
    clock: Clock


class Session:
    """What is behind the page. Safe to call from several threads."""

    def __init__(
        self,
        choices: Sequence[Choice],
        folder: Path,
        *,
        device: str = "auto",
        max_time_s: float = 30.0,
        allow_stale: bool = False,
    ) -> None:
        """`folder` takes what is downloaded; measuring begins no further call after `max_time_s`."""
        self.choices = {choice.label: choice for choice in choices}
        self._folder, self._device, self._max_time_s, self._allow_stale = folder, device, max_time_s, allow_stale
        self._known: dict[str, Known] = {}
        self._loaded: _Loaded | None = None
        self._turns = Turns()

    def prepare(self, label: str, owner: str, tell: Tell, *, again: bool = False) -> Known:
        """Loads the denoisers of a choice, and reads their profile or measures and writes it; `again` measures anew.

        Raises StoppedError, and what loading, measuring and reading raise: StaleError where a profile that was given or
        found belongs to another machine, other versions or other weights.
        """
        with self._turns.mine(owner) as passing:
            choice = self._choice(label)
            if again or label not in self._known:
                profile, path = self._read_or_measure(choice, passing, tell, again=again)
                self._known[label] = _known(profile, path, self._load(label, profile, tell).family)
            return self._known[label]

    def plan(self, label: str, budget_s: float) -> Plan:
        """The plan for `budget_s` seconds, as `tstitch plan --budget` makes it.

        Raises UsageError where the choice has not been measured, and what `make_plan` raises.
        """
        return _planned(self._measured(label), f"{budget_s:.6g}s")

    def plan_file(self, plan: Plan, owner: str) -> Path:
        """Writes `plan` in the place of the one that `owner` had before."""
        path = self._of(owner) / "plan.yaml"
        documents.write_plan(plan, path, overwrite=True)
        return path

    def draw(self, label: str, budget_s: float, prompt: str, seed: object, owner: str, tell: Tell) -> Drawing:
        """Draws `prompt` in one call of a full batch, by the plan's chosen row, from the noise of `seed`.

        The files are those that `tstitch sample --count BATCH` writes for this plan, prompt and seed.

        Raises StoppedError, and what `sample` raises.
        """
        with self._turns.mine(owner) as passing:
            plan, request = self._asked(label, budget_s, prompt, seed, owner)
            row = plan.rows[plan.chosen]
            refuse(plan, row, request, allow_stale=self._allow_stale)
            loaded, work = self._load(label, self._measured(label).profile, tell), work_of(plan, row)
            steps = _Steps(passing, tell, "drawing", len(work.turns()))
            clock = PassingClock(loaded.clock, steps)
            batches = request.batches(plan.setting.batch_size)
            (drawn,) = draw_each(loaded.family, work, batches, NOTHING, clock)
            began = time.perf_counter()
            paths = tuple(request.folder / name for name, _ in drawn.files)
            for path, (_, content) in zip(paths, drawn.files, strict=True):
                write_png(path, content, overwrite=False)
            actual_s = drawn.actual_s + time.perf_counter() - began
            unknown = remark_on(plan, request.texts)
            said = (*report(plan, row, [actual_s], drawn.pictures), *drawn.remarks, *([unknown] if unknown else []))
            return Drawing(plan, paths, said)

    def sweep(self, label: str, budget_s: float, prompt: str, seed: object, owner: str, tell: Tell) -> Path:
        """Draws `prompt` from the same noise at every share of the smallest denoiser, into a contact sheet.

        Raises what `draw` raises.
        """
        with self._turns.mine(owner) as passing:
            plan, request = self._asked(label, budget_s, prompt, seed, owner)
            row = plan.rows[plan.chosen]
            refuse(plan, row, request, sweep=True, allow_stale=self._allow_stale)
            loaded, work = self._load(label, self._measured(label).profile, tell), work_of(plan, row)
            steps = _Steps(passing, tell, "drawing the sweep", 11 * len(work.turns()))
            batches = request.batches(plan.setting.batch_size)
            columns = list(sweep(loaded.family, work, batches, PassingClock(loaded.clock, steps)))
            prompts = [prompt] + [""] * (len(request.pictures) - 1)
            sheet = sheet_of(columns, prompts, plan.denoisers[0].name, plan.denoisers[-1].name)
            path = request.folder / SWEEP
            write_png(path, sheet_png(sheet), overwrite=False)
            return path

    def stop(self, owner: str) -> bool:
        """Stops what `owner` asked for between two steps, or before it begins; returns whether there was anything."""
        return self._turns.stop(owner)

    def leave(self, owner: str) -> None:
        """Stops what `owner` asked for, and removes their files."""
        self.stop(owner)
        shutil.rmtree(self._of(owner), ignore_errors=True)

    def close(self) -> None:
        """Stops everything."""
        self._turns.stop()

    def _choice(self, label: str) -> Choice:
        try:
            return self.choices[label]
        except KeyError:
            hint = f"there are: {'; '.join(self.choices)}"
            raise UsageError(f"{str(label)[:80]!r} is no family of this page", hint=hint) from None

    def _measured(self, label: str) -> Known:
        choice = self._choice(label)
        if label not in self._known:
            raise UsageError(
                f"{choice.label} has not been measured, so nothing can be planned", hint="measure it first"
            )
        return self._known[label]

    def _asked(self, label: str, budget_s: float, prompt: str, seed: object, owner: str) -> tuple[Plan, Request]:
        """The plan, and a full batch of pictures into a new folder of `owner`'s, whose earlier ones are removed."""
        plan, number = self.plan(label, budget_s), _seed(seed)
        above = self._of(owner)
        for old in above.glob("drawing-*"):
            shutil.rmtree(old, ignore_errors=True)
        folder = Path(tempfile.mkdtemp(prefix="drawing-", dir=above))
        return plan, Request((Prompt(prompt),), folder, count=plan.setting.batch_size, seed=number)

    def _of(self, owner: str) -> Path:
        """The folder of `owner` alone, whose name may be anything, and nothing."""
        path = self._folder / f"of-{hashlib.sha256(owner.encode('utf-8', 'replace')).hexdigest()[:32]}"
        path.mkdir(parents=True, exist_ok=True)
        return path

    def _read_or_measure(self, choice: Choice, passing: Passing, tell: Tell, *, again: bool) -> tuple[Profile, Path]:
        """The profile that was given or found where the page keeps it, else a new one there."""
        path = choice.profile
        if path is None:
            setting = choice.setting(self._device)
            names = [entry.name for entry in choice.entries]
            path = default_path(choice.entries[-1].latent_space.name, names, setting)
            if again or not path.exists():
                files.refuse_existing(path, overwrite=again)
                documents.write_profile(self._measure(choice, setting, passing, tell), path, overwrite=again)
        return documents.read_profile(path), path

    def _measure(self, choice: Choice, setting: Setting, passing: Passing, tell: Tell) -> Profile:
        if self._loaded is None or self._loaded.label != choice.label:
            self._loaded = None  # before the next one needs its room
            entries, _ = fetch_missing(choice.entries, setting.dtype, tell)
            tell("loading " + ", ".join(entry.name for entry in entries), 0.0)
            family = load(entries, setting)
            self._loaded = _Loaded(choice.label, family, clock_for(family.device))
        family, clock = self._loaded.family, PassingClock(self._loaded.clock, passing)
        size = family.setting.batch_size
        batch = Batch(family.example_prompts(size), tuple(range(size)), given=blank(setting))
        return measure(family, batch, clock, Effort(max_time_s=self._max_time_s), progress=tell)

    def _load(self, label: str, profile: Profile, tell: Tell) -> _Loaded:
        """The denoisers of a profile, warmed up, in the place of those that were in memory.

        Raises StaleError where the profile belongs to another machine, other versions or other weights.
        """
        if self._loaded is None or self._loaded.label != label:
            self._loaded = None
            plan = make_plan(profile, budget=parse_budget("100%"))
            entries, _ = fetch_missing(entries_of(plan.denoisers), plan.setting.dtype, tell)
            tell("loading " + ", ".join(entry.name for entry in entries), 0.0)
            each = tuple((denoiser.name, 1) for denoiser in plan.denoisers)
            order = Order(replace(work_of(plan, plan.rows[plan.chosen]), allocation=each), tuple(entries))
            identify(plan, order, allow_stale=self._allow_stale)
            family = order.load()
            clock = clock_for(family.device)
            tell("warming up", 0.5)
            size = plan.setting.batch_size
            warm_up(family, order.work, Batch(family.example_prompts(size), tuple(range(size))), clock)
            self._loaded = _Loaded(label, family, clock)
        return self._loaded


class _Steps:
    """Told of every moment of calls that may be stopped, and tells how much of them is done."""

    def __init__(self, passing: Passing, tell: Tell, doing: str, evaluations: int) -> None:
        self._passing, self._tell, self._doing, self._evaluations = passing, tell, doing, evaluations
        self._done, self._told = 0, 0.0

    def __call__(self) -> None:
        self._passing()
        if (now := time.monotonic()) - self._told >= TELLING_S:
            self._told = now
            self._tell(self._doing, min(1.0, self._done / self._evaluations))
        self._done += 1


def _known(profile: Profile, path: Path, family: Family) -> Known:
    whole = make_plan(profile, budget=parse_budget("100%"))
    fastest = min(row.time_s.within for row in whole.rows if row.refused is None) * (1.0 + whole.budget.margin)
    digits = 2 - floor(log10(whole.budget.seconds))
    least, most = (_up(seconds, digits) for seconds in (fastest, whole.budget.seconds))
    step = 10.0**-digits
    conditioning = family.host.conditioning
    names = [label.split(",")[0].strip() for label in conditioning.labels]
    return Known(
        profile,
        path,
        documents.digest(path),
        classes=conditioning.kind == "class",
        examples=tuple(names[:EXAMPLES]) or tuple(dict.fromkeys(family.example_prompts(EXAMPLES))),
        least_s=least,
        most_s=max(most, round(least + step, max(0, digits))),
        step_s=step,
    )


def _up(seconds: float, digits: int) -> float:
    """`seconds` rounded up to `digits` decimals, so that a budget of what is shown is enough."""
    return round(ceil(seconds * 10.0**digits * (1 - 1e-9)) / 10.0**digits, digits)


def _planned(known: Known, budget: str) -> Plan:
    asked = parse_budget(budget)
    plan = make_plan(known.profile, budget=asked, profile_path=known.path.as_posix(), digest=known.digest)
    return with_refined(plan, known.profile, budget=asked, objective=None, order=SMALL_TO_LARGE)


def _seed(given: object) -> int:
    """Raises UsageError for what is no seed."""
    text = "" if given is None else str(given).strip()
    if text.isascii() and text.isdecimal() and len(text) < 20 and int(text) <= MAX_SEED:
        return int(text)
    raise UsageError(f"the seed {text[:40]!r} is no whole number from 0 to {MAX_SEED}", hint="0 is as good as any")
