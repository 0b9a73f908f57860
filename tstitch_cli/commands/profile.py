"""`tstitch profile`: measures denoisers on this machine and writes a profile."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tstitch_cli.commands.edge import guarded, out, steps_bar, talk
from tstitch_cli.errors import UsageError
from tstitch_cli.schema import MAX_SEED, Profile, Setting

if TYPE_CHECKING:
    from tstitch_cli.zoo.entry import Entry

WIDTH = 160


@guarded
def profile(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="DENOISER...",
            help="Two or more, in any order: names of the zoo, hub ids or local diffusers folders.",
        ),
    ],
    steps: Annotated[int | None, typer.Option(help="Sampling steps; the family's own by default.", min=1)] = None,
    scheduler: Annotated[str | None, typer.Option(help="Sampler, such as ddim, pndm, dpm++, euler, heun, lcm.")] = None,
    guidance: Annotated[float | None, typer.Option(help="Guidance scale; 1 turns guidance off.", min=0.0)] = None,
    batch_size: Annotated[int | None, typer.Option(help="Pictures a call.", min=1)] = None,
    size: Annotated[int | None, typer.Option(help="Side of the picture in pixels.", min=8)] = None,
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16 or float16.")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps, xpu; the best there is by default.")] = "auto",
    seed: Annotated[int, typer.Option(help="Seed of the noise and the rounds' order.", min=0, max=MAX_SEED)] = 0,
    tolerance: Annotated[
        str, typer.Option(help="Measure until the 95 % confidence interval of every trajectory is this narrow.")
    ] = "1%",
    max_time: Annotated[
        str, typer.Option(help="Start no further call after this time, once there are the fewest that tell anything.")
    ] = "2min",
    out_file: Annotated[
        Path | None, typer.Option("--out", help="The profile; profiles/<device>-<family>-<setting>.yaml by default.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing profile.")] = False,
    from_times: Annotated[
        bool,
        typer.Option("--from-times", help="Measure nothing: make a profile from NAME=TIME pairs, TIME a trajectory's."),
    ] = False,
    random_weights: Annotated[
        bool,
        typer.Option("--random-weights", help="Download nothing: time the zoo's architectures with random weights."),
    ] = False,
) -> None:
    """Measure what every denoiser costs per step on this machine, and write a profile.

    The calls that are timed are the ones that `sample` makes: all denoisers in turn, in randomised rounds, after a
    warm-up, until the times are known well enough. Stitched calls that nothing was fitted to are then run to check
    the prediction.
    """
    if from_times:
        made = _import(names, steps, scheduler, guidance, batch_size, size, dtype)
        _save(made, out_file, overwrite=overwrite)
        return
    from tstitch_cli.quantities import parse_duration, parse_share
    from tstitch_cli.schedulers import known
    from tstitch_cli.zoo.preflight import check, check_setting
    from tstitch_cli.zoo.registry import Zoo

    tolerance_share, most_s = parse_share(tolerance), parse_duration(max_time)
    if scheduler is not None:
        known(scheduler)
    zoo = Zoo.load()
    entries = smallest_first([zoo.resolve(name) for name in names])
    check(entries)
    from tstitch_cli.devices import resolve_device, resolve_dtype

    here = resolve_device(device)
    defaults = entries[-1].defaults
    setting = Setting(
        steps=steps or defaults.steps,
        scheduler=scheduler or defaults.scheduler,
        guidance=defaults.guidance if guidance is None else guidance,
        batch_size=batch_size or defaults.batch_size,
        size=size or defaults.size,
        dtype=resolve_dtype(dtype, defaults.dtype, here),
        device=here,
    )
    check_setting(entries, setting)
    path = out_file or default_path(entries[-1].latent_space.name, setting, random_weights=random_weights)
    measure_and_save(
        entries, setting, seed, tolerance_share, most_s, path, overwrite=overwrite, random_weights=random_weights
    )


def measure_and_save(
    entries: list[Entry],
    setting: Setting,
    seed: int,
    tolerance: float,
    max_time_s: float,
    path: Path,
    *,
    overwrite: bool,
    random_weights: bool = False,
) -> Profile:
    """Loads, measures, writes and shows; refuses an existing `path` before any work is done."""
    from tstitch_cli.files import refuse_existing

    refuse_existing(path, overwrite=overwrite)
    with steps_bar() as bar:
        bar("loading " + ", ".join(entry.name for entry in entries), 0.0)
        from tstitch_cli.clocks import clock_for
        from tstitch_cli.denoisers import load
        from tstitch_cli.profile import Effort, measure
        from tstitch_cli.trajectory import Batch

        with _mentioning_random_weights(entries):
            family = load(entries, setting, random_weights=random_weights)
        prompts = family.example_prompts(setting.batch_size)
        batch = Batch(prompts, tuple(range(setting.batch_size)), seed)
        made = measure(family, batch, clock_for(family.device), Effort(tolerance, max_time_s), progress=bar)
    _save(made, path, overwrite=overwrite)
    return made


def smallest_first(entries: list[Entry]) -> list[Entry]:
    """By parameters; where they are not known, in the order given."""
    if any(entry.parameters is None for entry in entries):
        return entries
    return sorted(entries, key=lambda entry: entry.parameters or 0)


def default_path(family: str, setting: Setting, *, random_weights: bool = False) -> Path:
    """Where a profile goes unless told otherwise."""
    from tstitch_cli.profiles import file_name

    path = Path("profiles") / file_name(family, setting)
    return path.with_stem(f"{path.stem}-random") if random_weights else path


@contextmanager
def _mentioning_random_weights(entries: list[Entry]) -> Iterator[None]:
    """Where weights are not to be had, says how to measure without them, if the zoo knows how to build them all."""
    from tstitch_cli.errors import BadFileError

    try:
        yield
    except BadFileError as error:
        if any(entry.architecture is None for entry in entries):
            raise
        without = "or measure without weights: add --random-weights"
        raise BadFileError(error.message, hint=f"{error.hint}; {without}" if error.hint else without) from error


def _import(
    pairs: list[str],
    steps: int | None,
    scheduler: str | None,
    guidance: float | None,
    batch_size: int | None,
    size: int | None,
    dtype: str | None,
) -> Profile:
    from tstitch_cli.imported import from_times
    from tstitch_cli.quantities import parse_named_times

    if steps is None:
        raise UsageError("--from-times needs --steps", hint="how many steps did the given times take? --steps 100")
    given = {"scheduler": scheduler, "guidance": guidance, "batch_size": batch_size, "size": size, "dtype": dtype}
    return from_times(
        parse_named_times(pairs),
        steps=steps,
        **{k: v for k, v in given.items() if v is not None},  # type: ignore[arg-type]
    )


def _save(made: Profile, path: Path | None, *, overwrite: bool) -> None:
    from rich.markup import escape

    from tstitch_cli.documents import write_profile

    path = path or default_path(made.family, made.setting)
    write_profile(made, path, overwrite=overwrite)
    show(made)
    talk.print(f"wrote [bold]{escape(str(path))}[/]; next: [bold]tstitch plan --budget 50%[/]")


def show(made: Profile) -> None:
    """Prints a profile as a table, then how far it can be trusted."""
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from tstitch_cli.costs import CostModel

    setting = made.setting
    talk.print(
        f"{escape(made.family)}: {setting.steps} steps of {escape(setting.scheduler)}, batch of {setting.batch_size}, "
        f"{setting.dtype} on {escape(made.fingerprint.device if made.fingerprint else setting.device)}"
    )
    table = Table(box=box.SIMPLE_HEAD)
    for column in ("denoiser", "parameters", "GFLOPs", "ms a step", "first", "last", "switch", "memory", "alone"):
        table.add_column(column, justify="left" if column == "denoiser" else "right", no_wrap=True)
    model = CostModel(made)
    for d in made.denoisers:
        table.add_row(
            escape(d.name),
            f"{d.parameters / 1e6:.2f} M" if d.parameters else "-",
            f"{d.flops / 1e9:.2f}" if d.flops else "-",
            f"{d.steady_s.mean * 1e3:.2f} ± {d.steady_s.std * 1e3:.2f}",
            f"{d.first_s.mean * 1e3:.2f}",
            f"{d.last_s.mean * 1e3:.2f}",
            f"+{d.switch_s.mean * 1e3:.2f}",
            f"{d.peak_memory_bytes / 2**20:.0f} MB" if d.peak_memory_bytes else "-",
            f"{model.mean_s(((d.name, setting.steps),)):.3f} s",
        )
    # A table wider than the terminal runs on into the next line rather than losing its figures.
    Console(width=max(out.width, WIDTH), highlight=False).print(table)
    fixed = made.fixed
    talk.print(
        f"besides the steps, a call takes {fixed.encode_s.mean * 1e3:.1f} ms to encode, "
        f"{fixed.decode_s.mean * 1e3:.1f} ms to decode and {fixed.write_s.mean * 1e3:.1f} ms to write"
    )
    if made.origin != "measured":
        return
    if made.fingerprint is not None and made.fingerprint.random:
        talk.print("measured with random weights: these times hold for the real ones, and nothing can be drawn by them")
    if setting.device == "cpu":
        talk.print("measured on the CPU: torch sees no accelerator here, or was told not to use it")
    talk.print(
        f"{made.rounds} rounds, 95 % confidence interval ± {made.confidence:.1%}"
        + ("" if made.stopped == "tight" else " when the time was up (--max-time)")
    )
    if not made.steady:
        talk.print("[yellow]the machine's speed drifted while measuring: close other programs and profile again[/]")
    for check in made.validation:
        predicted, measured = check.predicted_s, check.measured_s.mean
        words = escape(", ".join(f"{name} {count}" for name, count in check.allocation))
        off = f"{measured / predicted - 1:+.1%}"
        talk.print(f"held out: {words}: predicted {predicted:.3f} s, measured {measured:.3f} s ({off})")
