"""Kills `tstitch sample` at random moments, gives the same command again, and so on, until its job is complete.

    python -m tests.killing FOLDER KILLS

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
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import tstitch_cli.sample
from tests.jobs import NAMES, command, contents, quick_plan
from tests.toys import FakeClock, family
from tstitch_cli.app import app
from tstitch_cli.documents import write_plan

PICTURES, BATCH = 240, 4


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
    seconds, operation = moments.uniform(0.0, 0.5), moments.randint(1, 80) + moments.choice((0, pictures(folder)))
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
    names = os.listdir(folder) if folder.exists() else []
    if any(name.endswith(".tmp") for name in names):
        return "a file half written"
    recorded = (folder / "manifest.jsonl").read_bytes().count(b"\n") - 1 if "manifest.jsonl" in names else 0
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
    """How many pictures are in a folder."""
    return sum(name.endswith(".png") for name in os.listdir(folder)) if folder.exists() else 0


def main() -> None:
    root, kills = Path(sys.argv[1]), int(sys.argv[2])
    moments, left = random.Random(0), Counter[str]()
    plan = quick_plan(batch_size=BATCH, size=16)
    write_plan(plan, root / "plan.yaml", overwrite=False)

    # What the children do is the command's own path, but for the weights: those of toys, which their parent has made.
    toys = family(FakeClock(), dict.fromkeys(NAMES, 1.0), steps=plan.setting.steps)
    setattr(tstitch_cli.sample, "load", lambda entries, setting, control: toys)  # noqa: B010
    given = ("--prompt", "bag", "--prompt", "coat", "--count", str(PICTURES // 2))
    whole, killed = (command(root / "plan.yaml", root / name, *given) for name in ("whole", "killed"))
    said = root / "said.txt"
    if status := draw(whole, said):
        raise SystemExit(f"drawing without kills ended with status {status}")
    while sum(left.values()) < kills:
        happened = kill(killed, root / "killed", said, moments)
        if happened is not None:
            left[happened] += 1
        elif contents(root / "killed") == contents(root / "whole"):
            shutil.rmtree(root / "killed")
        else:
            raise SystemExit(f"not the same after {sum(left.values())} kills")
    if status := draw(killed, said):
        raise SystemExit(f"going on after the last kill ended with status {status}")
    print(f"killed {kills} times, which left: " + ", ".join(f"{what} {n} times" for what, n in left.most_common()))


if __name__ == "__main__":
    main()
