"""What the paper's systems cost at true size on this machine, by random weights, beside the paper's ratios.

    python -m tests.benchmarks.costs --device cuda --out profiles/measured/mine

Protocol: each of SYSTEMS is profiled by `tstitch profile --random-weights` in its family's default setting, which is
the paper's (steps, sampler, guidance, size, batch); nothing is downloaded. Each is a process of its own, so that its
memory is free for the next, and that running out of it ends it alone. What does not fit is skipped, and why is told; a
profile that is in the folder already is not measured again. The table has whole calls; ± is the half width of the 95 %
confidence interval that the profile reached.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import psutil

from tests.benchmarks.common import markdown, positive, start
from tstitch_cli.commands.edge import talk
from tstitch_cli.devices import resolve_device, resolve_dtype
from tstitch_cli.documents import read_profile
from tstitch_cli.errors import TstitchError
from tstitch_cli.planning.costs import CostModel
from tstitch_cli.quantities import shown_bytes
from tstitch_cli.schema import Profile
from tstitch_cli.zoo.registry import Zoo

SYSTEMS = (
    ("bk-sdm-tiny", "bk-sdm-small", "bk-sdm-base", "sd14"),
    ("dit-s-256", "dit-b-256", "dit-xl-256"),
    ("ldm-s-256", "ldm-256"),
    ("ssd-1b", "sdxl"),
    ("lcm-ssd-1b", "lcm-sdxl"),
    ("dit-s-256", "u-vit-h-256"),
)
"""Those of the paper, smallest first."""
PAPER = {
    ("bk-sdm-tiny", "sd14"): 1.7,
    ("dit-s-256", "dit-xl-256"): 16.5 / 1.6,
    ("dit-b-256", "dit-xl-256"): 16.5 / 4.0,
    ("ldm-s-256", "ldm-256"): 7.1 / 2.9,
    ("ssd-1b", "sdxl"): 13.6 / 8.8,
    ("lcm-ssd-1b", "lcm-sdxl"): 1029 / 823,
}
"""Small and large -> how many times longer the large one takes for a picture on an RTX 3090, as far as published."""
ITEM_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
HEADER = ("large : small", "seconds a call", "±", "ratio", "of a step", "of GFLOPs", "the paper's")

Profiling = Callable[[list[str]], str | None]
"""Runs a command; returns why it failed, None where it did not."""


def command(names: Sequence[str], path: Path, device: str, max_time: str, steps: int | None) -> list[str]:
    """`tstitch profile` of one system, as it is typed; in the paper's number of steps unless others are given."""
    counted = [] if steps is None else ["--steps", str(steps)]
    options = ["--random-weights", "--device", device, "--max-time", max_time, *counted, "--out", str(path)]
    return ["profile", *names, *options]


def run(typed: list[str]) -> str | None:
    """Runs `tstitch` in a process of its own, without what it shows; returns its error, None where there was none."""
    python = [sys.executable, "-m", "tstitch_cli.app"]
    done = subprocess.run([*python, *typed], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
    if not done.returncode:
        return None
    told = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    return told[0].removeprefix("error:").strip() if told else f"it ended with status {done.returncode}"


def room(device: str) -> int:
    """Bytes of memory that are free on `device`; on one that does not tell, as many as it wants."""
    if device == "cpu":
        return int(psutil.virtual_memory().available)
    import torch

    return int(torch.cuda.mem_get_info(torch.device(device))[0]) if device.startswith("cuda") else sys.maxsize


def too_large(names: Sequence[str], device: str, free: int) -> str | None:
    """Why `names` do not fit into `free` bytes on `device`, by their weights alone; None where these do."""
    entries = [Zoo.shipped().entries[name] for name in names]
    dtype = resolve_dtype(None, entries[-1].defaults.dtype, device)
    weights = sum((entry.parameters or 0) * ITEM_BYTES[dtype] for entry in entries)
    if weights <= free:
        return None
    return f"their weights take {shown_bytes(weights)} in {dtype}, {shown_bytes(free)} are free"


def profiled(
    systems: Sequence[Sequence[str]],
    folder: Path,
    device: str,
    max_time: str,
    steps: int | None = None,
    profiling: Profiling = run,
) -> Iterator[Profile | str]:
    """The profile of each system in turn, which is then in `folder` too, or why there is none."""
    for names in systems:
        path = folder / f"{'-'.join(names)}-random.yaml"
        if not path.exists():
            talk.print(f"profiling {', '.join(names)}")
            why = too_large(names, device, room(device))
            why = why or profiling(command(names, path, device, max_time, steps))
            if why is not None:
                yield f"{', '.join(names)}: {why}"
                continue
        try:
            yield read_profile(path)
        except TstitchError as error:
            yield error.message


def rows(profile: Profile) -> Iterator[tuple[str, ...]]:
    """The table's lines of one system: its largest denoiser against each smaller one."""
    model, steps = CostModel(profile), profile.setting.taken
    *smaller, large = profile.denoisers
    whole = {denoiser.name: model.mean_s(((denoiser.name, steps),)) for denoiser in profile.denoisers}
    for small in reversed(smaller):
        paper = PAPER.get((small.name, large.name))
        yield (
            f"`{large.name}` : `{small.name}`",
            f"{whole[large.name]:.3g} : {whole[small.name]:.3g}",
            f"{profile.confidence:.1%}",
            f"{whole[large.name] / whole[small.name]:.2f}",
            f"{large.steady_s.mean / small.steady_s.mean:.2f}",
            f"{large.flops / small.flops:.2f}" if large.flops and small.flops else "-",
            "-" if paper is None else f"{paper:.2f}",
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="of the profiles")
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, mps, xpu; the best there is by default")
    parser.add_argument("--max-time", default="2min", help="of each profile")
    parser.add_argument("--steps", type=positive, help="fewer than the paper's, where there is no time for those")
    parser.add_argument("--only", metavar="NAME", help="the systems that have this denoiser")
    given = parser.parse_args()
    systems = [names for names in SYSTEMS if given.only in (None, *names)]
    if not systems:
        parser.error(f"no system has {given.only}")
    given.out.mkdir(parents=True, exist_ok=True)
    found = list(profiled(systems, given.out, resolve_device(given.device), given.max_time, given.steps))
    print(markdown(HEADER, [line for each in found if isinstance(each, Profile) for line in rows(each)]))
    for why in (each for each in found if isinstance(each, str)):
        print(f"\nskipped: {why}")


if __name__ == "__main__":
    start(main)
