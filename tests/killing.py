"""Kills `tstitch sample` or `evaluate` at random moments, gives the same command again, until its job is complete.

    python -m tests.killing sample|evaluate FOLDER KILLS

Each run is a process of its own, forked from one that has imported everything, so that a kill takes a fraction of a
second. FOLDER/whole is drawn in one go, FOLDER/killed with the kills, anew where it is complete before all of them.
Prints what happened.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import tstitch_cli.denoisers
import tstitch_cli.sample
from tests.jobs import NAMES, command, contents, quick_plan
from tests.toys import FakeClock, family
from tstitch_cli.app import app
from tstitch_cli.denoisers import load
from tstitch_cli.documents import write_plan
from tstitch_cli.zoo.registry import Zoo

PICTURES, BATCH = 240, 4
OPERATIONS = {"sample": 80, "evaluate": 300}
"""Among how many of the first things that a run does to files the one is chosen at which it is killed."""


def draw(arguments: list[str], said: Path) -> int:
    """Runs `tstitch` with `arguments` in this process; returns its exit status."""
    with said.open("a") as file, redirect_stdout(file), redirect_stderr(file):
        try:
            app(arguments)
        except SystemExit as ended:
            return int(ended.code or 0)
    return 70


def kill(arguments: list[str], folder: Path, said: Path, moments: random.Random) -> str | None:
    """Starts a run and kills it at a random moment; what that left, None if the run was complete before.

    Most moments are chosen among what the run does to files, where the time it takes is a small part of the whole.
    """
    by_time = moments.random() < 0.3
    most = OPERATIONS[arguments[0]]
    seconds, operation = moments.uniform(0.0, 0.5), moments.randint(1, most) + moments.choice((0, pictures(folder)))
    process = os.fork()
    if not process:
        if not by_time:
            sys.addaudithook(Death(folder, operation))
        os._exit(draw(arguments, said))
    if by_time:
        time.sleep(seconds)
        os.kill(process, signal.SIGKILL)
    ended = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    if ended not in (0, -signal.SIGKILL):
        raise SystemExit(f"a run ended with status {ended}")
    if ended == 0:
        return None
    if any(folder.rglob(".*.tmp")):
        return "a file half written"
    recorded = sum(path.read_bytes().count(b"\n") - 1 for path in folder.rglob("manifest.jsonl"))
    return "a batch half written" if pictures(folder) > recorded else "whole batches"


class Death:
    """Kills its process before it opens, moves or removes a file in a folder for the n-th time."""

    def __init__(self, folder: Path, operation: int) -> None:
        self.folder, self.left = str(folder), operation

    def __call__(self, event: str, arguments: tuple[object, ...]) -> None:
        if arguments and event.startswith(("open", "os.")) and str(arguments[0]).startswith(self.folder):
            self.left -= 1
            if not self.left:
                os.kill(os.getpid(), signal.SIGKILL)


def pictures(folder: Path) -> int:
    """How many pictures are in a folder and those in it."""
    return sum(1 for _ in folder.rglob("*.png"))


def to_sample(root: Path) -> Callable[[str], list[str]]:
    """What draws into a folder of `root`, with quick denoisers in the place of those of the plan."""
    plan = quick_plan(batch_size=BATCH, size=16)
    write_plan(plan, root / "plan.yaml", overwrite=False)
    toys = family(FakeClock(), dict.fromkeys(NAMES, 1.0), steps=plan.setting.steps)
    setattr(tstitch_cli.sample, "load", lambda entries, setting, control: toys)  # noqa: B010
    given = ("--prompt", "bag", "--prompt", "coat", "--count", str(PICTURES // 2))
    return lambda name: command(root / "plan.yaml", root / name, *given)


def to_evaluate(root: Path) -> Callable[[str], list[str]]:
    """What measures rows of a plan in a folder of `root`, and keeps their pictures there."""
    plan = quick_plan()
    loaded = load([Zoo.shipped().entries[name] for name in NAMES], plan.setting)
    setattr(tstitch_cli.denoisers, "load", lambda entries, setting, control: loaded)  # noqa: B010
    given = ("--rows", "0,1,2", "--metrics", "accuracy", "--count", "20", "--batch-size", str(BATCH))

    def typed(name: str) -> list[str]:
        folder = root / name
        if not (folder / "plan.yaml").exists():
            write_plan(plan, folder / "plan.yaml", overwrite=False)
        places = ("--plan", folder / "plan.yaml", "--work", folder / "work", "--keep", folder / "kept")
        return ["evaluate", *map(str, places), *given]

    return typed


def main() -> None:
    what, root, kills = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    moments, left = random.Random(0), Counter[str]()
    # What the children do is the command's own path, but for loading: their parent has the denoisers.
    typed = {"sample": to_sample, "evaluate": to_evaluate}[what](root)
    said = root / "said.txt"
    if status := draw(typed("whole"), said):
        raise SystemExit(f"drawing without kills ended with status {status}")
    while sum(left.values()) < kills:
        happened = kill(typed("killed"), root / "killed", said, moments)
        if happened is not None:
            left[happened] += 1
        elif contents(root / "killed") == contents(root / "whole"):
            shutil.rmtree(root / "killed")
        else:
            raise SystemExit(f"not the same after {sum(left.values())} kills")
    if status := draw(typed("killed"), said):
        raise SystemExit(f"going on after the last kill ended with status {status}")
    print(f"killed {kills} times, which left: " + ", ".join(f"{what} {n} times" for what, n in left.most_common()))


if __name__ == "__main__":
    main()
