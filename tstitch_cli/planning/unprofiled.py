"""What a plan's choice was not held against because nobody profiled it, and the command that does."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import replace

from tstitch_cli.errors import UsageError
from tstitch_cli.savings import accelerations
from tstitch_cli.schema import Plan, Setting
from tstitch_cli.zoo.entry import Entry
from tstitch_cli.zoo.typed import as_typed, in_the_zoo


def caches(plan: Plan, profiled: Iterable[Setting]) -> tuple[str, ...]:
    """The caches that work on all denoisers of `plan` in its setting and that none of the `profiled` settings has.

    None where the setting has an acceleration already, or the zoo does not know one of the denoisers.
    """
    setting = plan.setting
    if setting.accelerate:
        return ()
    tried = {
        name
        for each in profiled
        if (each.steps, each.scheduler) == (setting.steps, setting.scheduler)
        for name in accelerations.names(each)
    }
    left = [name for name, each in accelerations.ACCELERATIONS.items() if each.cache and name not in tried]
    found = in_the_zoo(plan.denoisers) if left else []
    entries = [entry for entry in found if entry is not None]
    return tuple(name for name in left if len(entries) == len(found) and _works(name, entries, setting))


def _works(cache: str, entries: Sequence[Entry], setting: Setting) -> bool:
    try:
        accelerations.check(entries, replace(setting, accelerate=accelerations.parse(cache)))
    except UsageError:
        return False
    return True


def command(plan: Plan, *, steps: Sequence[int] = (), accelerate: Sequence[str] = ()) -> str:
    """The `tstitch profile` that measures the plan's setting together with other numbers of steps or caches."""
    of = plan.setting
    options: dict[str, object] = {
        "--steps": ",".join(map(str, sorted({of.steps, *steps}))),
        "--scheduler": of.scheduler,
        "--guidance": f"{of.guidance:g}",
        "--batch-size": of.batch_size,
        "--size": of.size or None,
        "--dtype": of.dtype,
        "--device": of.device,
        "--strength": of.strength,
        "--control": of.control,
        "--frames": of.frames,
        "--embeddings": of.embeddings,
    }
    flags = {"--inpaint": of.inpaint, "--compile": of.compiled, "--offload": of.offload}
    words = [word for option, value in options.items() if value is not None for word in (option, str(value))]
    words += [flag for flag, given in flags.items() if given]
    mine = ",".join(of.accelerate)
    for each in [mine or "none", *accelerate] if accelerate or mine else []:
        words += ["--accelerate", each]
    # The setting's own profile is there already, and is measured anew so that all share one reference.
    return shlex.join(["tstitch", "profile", *as_typed(plan.denoisers), *words, "--overwrite"])
