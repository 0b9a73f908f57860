"""`tstitch profile`: measures denoisers on this machine and writes a profile."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tstitch_cli.commands.edge import guarded, steps_bar, talk
from tstitch_cli.commands.fetch import fetch_missing
from tstitch_cli.errors import UsageError
from tstitch_cli.schema import MAX_SEED, Profile, Setting

if TYPE_CHECKING:
    from tstitch_cli.denoisers import Family
    from tstitch_cli.zoo.controls import Control
    from tstitch_cli.zoo.entry import Entry


@guarded
def profile(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="DENOISER...",
            help="Two or more, in any order: names of the zoo (tiny-sd and tiny-sd-small come with tstitch), hub ids "
            "or local diffusers folders.",
        ),
    ],
    steps: Annotated[
        str | None, typer.Option(help="Sampling steps, or several numbers: 10,20,50; the family's own by default.")
    ] = None,
    scheduler: Annotated[
        str | None, typer.Option(help="Sampler, such as ddim, pndm, dpm++, euler, heun, lcm, or several: ddim,dpm++.")
    ] = None,
    guidance: Annotated[float | None, typer.Option(help="Guidance scale; 1 turns guidance off.", min=0.0)] = None,
    batch_size: Annotated[int | None, typer.Option(help="Pictures a call.", min=1)] = None,
    size: Annotated[int | None, typer.Option(help="Side of the picture in pixels.", min=8)] = None,
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16 or float16.")] = None,
    strength: Annotated[
        float | None,
        typer.Option(help="Image-to-image: the share of the steps taken, from a noised picture; such as 0.6."),
    ] = None,
    inpaint: Annotated[
        bool, typer.Option("--inpaint", help="Draw only what a mask covers; at --strength 1 unless given.")
    ] = False,
    control: Annotated[
        str | None, typer.Option(help="Steer by a ControlNet: canny, depth ..., a folder or a hub id.")
    ] = None,
    frames: Annotated[int | None, typer.Option(help="Frames of a video.", min=1)] = None,
    compiled: Annotated[
        bool, typer.Option("--compile", help="Compile every denoiser (torch.compile); the time of it is load time.")
    ] = False,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps, xpu; the best there is by default.")] = "auto",
    embeddings: Annotated[
        str, typer.Option(help="Whose text encoder the prompts of a denoiser go through: the large one's, or its own.")
    ] = "large",
    accelerate: Annotated[
        list[str] | None,
        typer.Option(
            help="Caches and the like: deepcache, tome, fbcache, taylorseer, pab, or deepcache:interval=2,tome; "
            "given again, an alternative, of which `none` is one."
        ),
    ] = None,
    offload: Annotated[
        bool, typer.Option("--offload", help="Keep only the part whose turn it is in the device's memory.")
    ] = False,
    vram: Annotated[
        str | None, typer.Option(help="Stay within this much of the device's memory, such as 6GB; offload if need be.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the noise and the rounds' order.", min=0, max=MAX_SEED)] = 0,
    tolerance: Annotated[
        str, typer.Option(help="Measure until the 95 % confidence interval of every trajectory is this narrow.")
    ] = "1%",
    max_time: Annotated[
        str | None,
        typer.Option(
            help="Time for warm-up, rounds and checks of a setting, or the fewest calls that tell anything; "
            "comparing predictions comes on top. By default as the zoo says for the family, else 2min."
        ),
    ] = None,
    out_file: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="The profile; profiles/<device>-<denoisers>-<setting>.yaml by default. Of several, their folder.",
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing profile.")] = False,
    no_agreement: Annotated[
        bool,
        typer.Option("--no-agreement", help="Do not compare predictions; plans then go by compute."),
    ] = False,
    offline: Annotated[bool, typer.Option("--offline", help="Fetch nothing from the hub: use what is here.")] = False,
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

    Of several numbers of steps, samplers or accelerations, every combination is profiled, each into a file of its own,
    and how far each takes the largest denoiser off its course, for `tstitch plan --steps any` to choose among them.
    """
    if from_times:
        meaningless = {
            "--strength": strength is not None,
            "--inpaint": inpaint,
            "--control": control is not None,
            "--frames": frames is not None,
            "--compile": compiled,
            "--embeddings": embeddings != "large",
            "--accelerate": bool(accelerate),
            "--offload": offload,
            "--vram": vram is not None,
            "--offline": offline,
            "--random-weights": random_weights,
        }
        if given := [option for option, is_given in meaningless.items() if is_given]:
            raise UsageError(
                f"--from-times measures nothing, so {', '.join(given)} mean nothing", hint="leave them out"
            )
        made = _import(names, steps, scheduler, guidance, batch_size, size, dtype)
        save(made, out_file, overwrite=overwrite)
        return
    from tstitch_cli.fetching import hub
    from tstitch_cli.fetching.fetch_command import command_for
    from tstitch_cli.fetching.hub_errors import advising
    from tstitch_cli.quantities import parse_bytes, parse_counts, parse_duration, parse_share
    from tstitch_cli.savings import accelerations, residency
    from tstitch_cli.schedulers import known
    from tstitch_cli.zoo.preflight import check, check_setting
    from tstitch_cli.zoo.registry import Zoo
    from tstitch_cli.zoo.tasks import frames as frames_of

    tolerance_share, given_s = parse_share(tolerance), None if max_time is None else parse_duration(max_time)
    samplers = [known(each.strip()) for each in scheduler.split(",")] if scheduler is not None else []
    counts = parse_counts(steps, "--steps") if steps is not None else ()
    cached = [accelerations.parse(each) if each.strip() != "none" else () for each in accelerate or []]
    if offline:
        hub.go_offline()
    zoo = Zoo.load()
    own = {"large": None, "own": "own"}.get(embeddings, embeddings)
    with advising(partial(command_for, names, dtype, control, own)):
        entries = smallest_first(zoo.resolve_all(names))
    check(entries, own)
    from tstitch_cli.devices import resolve_device, resolve_dtype

    here = resolve_device(device)
    defaults = entries[-1].defaults
    most_s = defaults.measure_s if given_s is None else given_s
    setting = Setting(
        steps=counts[0] if counts else defaults.steps,
        scheduler=samplers[0] if samplers else defaults.scheduler,
        guidance=defaults.guidance if guidance is None else guidance,
        batch_size=batch_size or defaults.batch_size,
        size=size or defaults.size,
        dtype=resolve_dtype(dtype, defaults.dtype, here),
        device=here,
        embeddings=own,
        accelerate=cached[0] if cached else (),
        offload=offload,
        strength=1.0 if inpaint and strength is None else strength,
        inpaint=inpaint,
        control=control,
        frames=frames_of(entries[-1], frames),
        compiled=compiled,
    )
    settings = [
        replace(setting, steps=count, scheduler=sampler, accelerate=how)
        for how in dict.fromkeys(cached or [()])
        for sampler in dict.fromkeys(samplers or [setting.scheduler])
        for count in counts or (setting.steps,)
    ]
    for each in settings:
        check_setting(entries, each)
    if control is not None:
        zoo.control(control, entries)
    vram_bytes = None if vram is None else parse_bytes(vram)
    residency.check(setting, vram_bytes)
    if vram_bytes is not None:
        settings = [residency.before_loading(entries, each, vram_bytes) for each in settings]
    if len(settings) > 1:
        from tstitch_cli.commands.profile_several import measure_several

        measure_several(
            entries,
            settings,
            seed,
            tolerance_share,
            most_s,
            out_file,
            agreement=not (no_agreement or random_weights),
            overwrite=overwrite,
            vram_bytes=vram_bytes,
            random_weights=random_weights,
        )
        return
    (setting,) = settings
    of = [entry.name for entry in entries]
    path = out_file or default_path(entries[-1].latent_space.name, of, setting, random_weights=random_weights)
    measure_and_save(
        entries,
        setting,
        seed,
        tolerance_share,
        most_s,
        path,
        agreement=not (no_agreement or random_weights),
        overwrite=overwrite,
        vram_bytes=vram_bytes,
        random_weights=random_weights,
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
    agreement: bool = True,
    vram_bytes: int | None = None,
    random_weights: bool = False,
) -> Profile:
    """Loads (within `vram_bytes`), measures, writes and shows; refuses an existing `path` before any work is done."""
    from tstitch_cli.files import refuse_existing
    from tstitch_cli.zoo.registry import control_of

    refuse_existing(path, overwrite=overwrite)
    net = control_of(setting, entries)
    with steps_bar() as bar:
        if not random_weights:
            with mentioning_random_weights(entries):
                entries, net = fetch_missing(entries, setting.dtype, bar, net, setting.embeddings)
        bar("loading " + ", ".join(entry.name for entry in entries), 0.0)
        from tstitch_cli.clocks import clock_for
        from tstitch_cli.inputs import blank
        from tstitch_cli.profile import Effort, measure
        from tstitch_cli.trajectory import Batch

        family = loaded(entries, setting, net, vram_bytes, random_weights=random_weights)
        prompts = family.example_prompts(setting.batch_size)
        batch = Batch(prompts, tuple(range(setting.batch_size)), seed, given=blank(setting))
        made = measure(family, batch, clock_for(family.device), Effort(tolerance, max_time_s, agreement), progress=bar)
    save(made, path, overwrite=overwrite)
    return made


def loaded(
    entries: list[Entry], setting: Setting, net: Control | None, vram_bytes: int | None, *, random_weights: bool
) -> Family:
    """Loads what was fetched, within `vram_bytes` where those are given, and says how that is done."""
    from tstitch_cli.denoisers import load
    from tstitch_cli.quantities import shown_bytes
    from tstitch_cli.savings.residency import load_within, peak_of

    loading = partial(load, control=net, random_weights=random_weights)
    with mentioning_random_weights(entries):
        if vram_bytes is None:
            return loading(entries, setting)
        family, peak = load_within(entries, setting, vram_bytes, loading, peak_of)
    how = "its parts in turn, --offload" if family.setting.offload else "all its parts resident"
    talk.print(f"within {shown_bytes(vram_bytes)}: {how}, at most {shown_bytes(peak)}")
    return family


def smallest_first(entries: list[Entry]) -> list[Entry]:
    """By parameters; where they are not known, in the order given."""
    if any(entry.parameters is None for entry in entries):
        return entries
    return sorted(entries, key=lambda entry: entry.parameters or 0)


def default_path(family: str, denoisers: list[str], setting: Setting, *, random_weights: bool = False) -> Path:
    """Where a profile goes unless told otherwise."""
    from tstitch_cli.profile_files import file_name

    path = Path("profiles") / file_name(family, denoisers, setting)
    return path.with_stem(f"{path.stem}-random") if random_weights else path


@contextmanager
def mentioning_random_weights(entries: list[Entry]) -> Iterator[None]:
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
    steps: str | None,
    scheduler: str | None,
    guidance: float | None,
    batch_size: int | None,
    size: int | None,
    dtype: str | None,
) -> Profile:
    from tstitch_cli.measuring.imported import from_times
    from tstitch_cli.quantities import parse_counts, parse_named_times

    if steps is None:
        raise UsageError("--from-times needs --steps", hint="how many steps did the given times take? --steps 100")
    count, *others = parse_counts(steps, "--steps")
    if others:
        raise UsageError("times that are given are those of one number of steps", hint=f"--steps {count}")
    given = {"scheduler": scheduler, "guidance": guidance, "batch_size": batch_size, "size": size, "dtype": dtype}
    return from_times(
        parse_named_times(pairs),
        steps=count,
        **{k: v for k, v in given.items() if v is not None},  # type: ignore[arg-type]
    )


def save(made: Profile, path: Path | None, *, overwrite: bool) -> None:
    """Writes and shows a profile, and says how to go on."""
    import shlex

    from rich.markup import escape

    from tstitch_cli.commands.profile_words import show
    from tstitch_cli.documents import write_profile
    from tstitch_cli.profile_files import FOLDER

    path = path or default_path(made.family, [denoiser.name for denoiser in made.denoisers], made.setting)
    write_profile(made, path, overwrite=overwrite)
    show(made)
    # What lies in the usual folder is found as the newest there.
    which = "" if path.resolve().parent == FOLDER.resolve() else f" --profile {shlex.quote(str(path))}"
    talk.print(f"wrote [bold]{escape(str(path))}[/]; next: [bold]tstitch plan{escape(which)} --budget 50%[/]")
