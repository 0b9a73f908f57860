"""Looks at what tstitch needs of a machine, part by part: what is there, what is wrong, and what mends it."""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, packages_distributions, requires, version
from pathlib import Path
from typing import Literal

from tstitch_cli.errors import ExitStatus, TstitchError
from tstitch_cli.quantities import shown_bytes, shown_s
from tstitch_cli.scrubbing import Scrubber

RUN_S = 2.0
LEAST_MEMORY, LEAST_DISK = 1 << 30, 200 << 20
"""Bytes below which not even the bundled family is sure to run, or its pictures to be written."""
NEEDED = (
    "torch",
    "diffusers",
    "transformers",
    "accelerate",
    "huggingface_hub",
    "safetensors",
    "numpy",
    "pillow",
    "psutil",
)
DRAWN, STEPS, SCHEDULER = ("tiny-sd-small", "tiny-sd"), 20, "ddim"
"""Bundled denoisers, whose stitched run tells whether drawing works here: Stable Diffusion's own pipeline in small."""
OPTIONAL = ("peft", "DeepCache", "tomesd", "nvidia-ml-py", "ray", "gradio")


@dataclass(frozen=True)
class Finding:
    """What was found of one part."""

    name: str
    verdict: Literal["ok", "remark", "fault"]
    detail: str
    cure: str | None = None
    """What mends it: a command where there is one."""
    status: ExitStatus = ExitStatus.OK
    """What a fault ends the command with."""


Check = Callable[[], Finding]
Progress = Callable[[str, float], None]


def examine(
    checks: Sequence[tuple[str, Check]],
    scrub: Callable[[str], str],
    progress: Progress = lambda doing, share: None,
) -> Iterator[Finding]:
    """Makes every check, whatever becomes of the others; nothing personal is left in what is found."""
    for done, (name, check) in enumerate(checks):
        progress(name, done / len(checks))
        try:
            found = check()
        except TstitchError as error:
            found = Finding(name, "fault", error.message, error.hint, error.status)
        except ImportError as error:
            module = (error.name or "a package").split(".")[0]
            told = f"{module} cannot be imported: {error}"
            found = Finding(name, "fault", told, _reinstall(module), ExitStatus.BAD_FILE)
        except OSError as error:
            told = f"{error.filename or name}: {error.strerror or error}"
            found = Finding(name, "fault", told, "see that it is there and may be read", ExitStatus.BAD_FILE)
        except Exception as error:  # a check that fails must not hide what the others find
            told = f"{type(error).__name__}: {error}"
            cure = "report this, with all that `tstitch doctor` prints"
            found = Finding(name, "fault", told, cure, ExitStatus.BUG)
        yield replace(found, detail=scrub(found.detail), cure=found.cure and scrub(found.cure))


def status(findings: Sequence[Finding]) -> ExitStatus:
    """The first fault's, OK where there is none."""
    return next((each.status for each in findings if each.verdict == "fault"), ExitStatus.OK)


def pip_install(what: str) -> str:
    """The command, which takes tstitch from its sources: an index may have something else of that name."""
    return f"pip install -c constraints.txt {what}  # in your clone of tstitch"


def _reinstall(module: str) -> str:
    """What mends a module that cannot be imported; a package may be called otherwise than its modules."""
    found = packages_distributions().get(module, [])
    if not found or "tstitch" in found:
        return pip_install(".")
    return pip_install(f"--force-reinstall {' '.join(sorted(set(found)))}")


def itself() -> Finding:
    """tstitch, Python and the system."""
    told = f"Python {platform.python_version()} on {platform.system()} {platform.release()} {platform.machine()}"
    try:
        return Finding("tstitch", "ok", f"tstitch {version('tstitch')}, {told}")
    except PackageNotFoundError:
        what = f"tstitch is not installed but run from its sources, {told}"
        return Finding("tstitch", "remark", what, pip_install("."))


def packages() -> Finding:
    """The libraries that tstitch runs on, and whether they are as new as it needs."""
    found, wrong = [], []
    for name in NEEDED:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            wrong.append(f'"{name}"')
    found += [f"{name} {version(name)}" for name in OPTIONAL if _installed(name)]
    wrong += [f'"{requirement}"' for requirement in _too_old()]
    detail = ", ".join(found)
    if not wrong:
        return Finding("packages", "ok", detail)
    what = f"missing or too old: {', '.join(wrong)}; there are {detail}".replace('"', "")
    return Finding("packages", "fault", what, pip_install(f"--upgrade {' '.join(wrong)}"), ExitStatus.BAD_FILE)


def _installed(name: str) -> bool:
    try:
        return bool(version(name))
    except PackageNotFoundError:
        return False


def _too_old() -> list[str]:
    """What tstitch requires and has in a version that does not do, where tstitch is installed and so tells."""
    try:
        from packaging.requirements import Requirement

        wanted = [Requirement(each) for each in requires("tstitch") or []]
    except (ImportError, PackageNotFoundError):
        return []
    needed = [each for each in wanted if each.marker is None or each.marker.evaluate({"extra": ""})]
    there = [each for each in needed if _installed(each.name)]
    return [str(each) for each in there if not each.specifier.contains(version(each.name), prereleases=True)]


def device() -> Finding:
    """The device that torch would run on, and whether there is a better one that it does not see."""
    import torch

    from tstitch_cli.devices import resolve_device
    from tstitch_cli.measuring.fingerprint import device_name, driver

    here = torch.device(resolve_device("auto"))
    told = f"{here.type}: {device_name(here)}, {driver(here)}, torch {torch.__version__}"
    if here.type == "cuda":
        free, total = torch.cuda.mem_get_info(here)
        return Finding("device", "ok", f"{told}, {shown_bytes(free)} of {shown_bytes(total)} free")
    threads = torch.get_num_threads()
    told += f", {threads} thread{'' if threads == 1 else 's'}"
    if here.type == "cpu" and _has_nvidia():
        what = f"there is an NVIDIA GPU that torch does not use; {told}"
        if torch.version.cuda is None:
            return Finding("device", "remark", what, _torch_for_cuda())
        return Finding("device", "remark", what, "nvidia-smi tells whether the driver works; then CUDA_VISIBLE_DEVICES")
    return Finding("device", "ok", told)


def _torch_for_cuda() -> str:
    if platform.system() == "Linux":  # where the plain package is the one for CUDA
        return pip_install("--force-reinstall torch")
    return "https://pytorch.org/get-started tells the command that installs torch's build for CUDA here"


def _has_nvidia() -> bool:
    return Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi") is not None


def memory() -> Finding:
    """The host's memory."""
    import psutil

    found = psutil.virtual_memory()
    told = f"{shown_bytes(found.available)} of {shown_bytes(found.total)} free"
    if found.available < LEAST_MEMORY:
        return Finding("memory", "fault", told, "close other programs", ExitStatus.DEVICE)
    return Finding("memory", "ok", told)


def disk() -> Finding:
    """Room where pictures and temporary files go: the working folder and the system's temporary one."""
    told, wrong = [], []
    for what, folder in (("here", Path.cwd()), ("for temporary files", Path(tempfile.gettempdir()))):
        free = shutil.disk_usage(folder).free
        told.append(f"{shown_bytes(free)} free {what} ({folder})")
        if free < LEAST_DISK:
            wrong.append(f"free some space in {folder}")
        elif not os.access(folder, os.W_OK | os.X_OK):
            wrong.append(f"choose another folder than {folder}, which may not be written to")
    if wrong:
        return Finding("disk", "fault", ", ".join(told), "; ".join(wrong), ExitStatus.BAD_FILE)
    return Finding("disk", "ok", ", ".join(told))


def cache() -> Finding:
    """The hub's cache on this disk, and how the hub may be asked."""
    from tstitch_cli.fetching import hub

    folder = hub.cache()
    above = next(each for each in (folder, *folder.absolute().parents) if each.exists())
    free = shutil.disk_usage(above).free
    size = _size(folder)
    told = f"{folder}: {shown_bytes(size) + ' in it' if size else 'empty'}, {shown_bytes(free)} free"
    told += ", offline" if hub.offline() else ""
    told += ", a token is set" if _has_token() else ", no token (gated models want one)"
    if not os.access(above, os.W_OK | os.X_OK):
        cure = "export HF_HOME=FOLDER, a folder that you may write to"
        return Finding("cache", "fault", f"{told}; it may not be written to", cure, ExitStatus.BAD_FILE)
    if free < LEAST_DISK:
        return Finding("cache", "remark", told, "hf cache rm MODEL, or export HF_HOME=FOLDER on another disk")
    return Finding("cache", "ok", told)


def _size(folder: Path) -> int:
    """Bytes of the files below `folder`; links are what they are."""
    total = 0
    for above, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(above, name)).st_size
            except OSError:
                continue
    return total


def _has_token() -> bool:
    from huggingface_hub import get_token

    return get_token() is not None


def zoo() -> Finding:
    """The denoisers whose weights are here, and the user's own zoo file."""
    from tstitch_cli.zoo.registry import Zoo, is_here, user_file

    found = Zoo.load()
    here = [entry.name for entry in found.entries.values() if is_here(entry)]
    told = f"{len(here)} of {len(found.entries)} denoisers are here: {', '.join(here) or 'none'}"
    own = user_file()
    told += f"; your own are in {own}" if own is not None else ""
    bundled = [entry for entry in Zoo.shipped().entries.values() if entry.source.startswith("bundled:")]
    if missing := [entry.name for entry in bundled if not is_here(entry)]:
        cure = pip_install("--force-reinstall --no-deps .")
        what = f"{told}; what should have come with tstitch is missing: {', '.join(missing)}"
        return Finding("zoo", "fault", what, cure, ExitStatus.BAD_FILE)
    return Finding("zoo", "ok", told)


def stitched_run() -> Finding:
    """Draws a bundled family's first example, stitched, for RUN_S seconds on the best device."""
    from tstitch_cli.allocation import per_evaluation
    from tstitch_cli.clocks import clock_for
    from tstitch_cli.denoisers import load
    from tstitch_cli.devices import resolve_device
    from tstitch_cli.measuring import machine_load, steadiness
    from tstitch_cli.schema import Setting
    from tstitch_cli.trajectory import Batch, run
    from tstitch_cli.zoo.registry import Zoo

    entries = [Zoo.shipped().entries[name] for name in DRAWN]
    defaults, on = entries[-1].defaults, resolve_device("auto")
    family = load(entries, Setting(STEPS, SCHEDULER, defaults.guidance, 1, defaults.size, "float32", on))
    allocation = ((DRAWN[0], STEPS // 2), (DRAWN[1], STEPS - STEPS // 2))
    turns, batch = per_evaluation(allocation, [1] * STEPS), Batch(family.example_prompts(1), (0,))
    clock, read = clock_for(family.device), machine_load.reader_for(on)
    run(family, batch, turns, clock)
    readings = [read()]
    seconds: list[float] = []
    began = time.perf_counter()
    while not seconds or time.perf_counter() - began < RUN_S:
        drawn = run(family, batch, turns, clock)
        seconds.append(drawn.total_s)
    readings.append(read())
    low, high = drawn.images[0].convert("L").getextrema()
    calls = f"{len(seconds)} call{'' if len(seconds) == 1 else 's'}"
    told = f"{calls} of {STEPS} steps on {on}, {shown_s(sum(seconds) / len(seconds))} each: "
    told += ", then ".join(f"{count} of {name}" for name, count in allocation)
    if low == high:
        cure = pip_install("--force-reinstall torch diffusers")
        return Finding("run", "fault", f"{told}; the picture is blank", cure, ExitStatus.DEVICE)
    if busy := steadiness.reasons(readings, on):
        return Finding(
            "run", "remark", f"{told}; {'; '.join(busy)}", "close other programs before you run `tstitch profile`"
        )
    return Finding("run", "ok", told)


CHECKS: tuple[tuple[str, Check], ...] = (
    ("tstitch", itself),
    ("packages", packages),
    ("device", device),
    ("memory", memory),
    ("disk", disk),
    ("cache", cache),
    ("zoo", zoo),
    ("run", stitched_run),
)


def all_findings(progress: Progress = lambda doing, share: None) -> tuple[Finding, ...]:
    """Everything, scrubbed of tokens, user name, host name and home."""
    return tuple(examine(CHECKS, Scrubber.here(), progress))
