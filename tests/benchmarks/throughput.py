"""What a Ray cluster costs: two workers against one process on the same cores.

    python -m tests.benchmarks.throughput --out tests/benchmarks/results/throughput.json

Protocol: fashion-s and fashion-xl, half of the steps each, in the family's default setting (DDIM, 20 steps, guidance
1.25, batches of 8). Both draw the same job into an empty folder, files and manifest included, after everything is
loaded and warm: one process with all threads (A), and on Ray the workers, which share the same number of threads (B).
Each round is A B B A; the ratio of means has a bootstrap interval over rounds. `--workers 1` tells what Ray itself
costs, without what two processes gain or lose against two threads.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import torch

from tests.benchmarks.common import (
    LARGE,
    SMALL,
    Estimate,
    Sample,
    arguments,
    estimate,
    machine,
    markdown,
    positive,
    ratio_of_means,
    save,
    start,
)
from tests.benchmarks.overhead import abba
from tests.jobs import quick_plan
from tstitch_cli.clocks import clock_for
from tstitch_cli.commands.edge import talk
from tstitch_cli.jobs.manifest import claimed
from tstitch_cli.jobs.prompts import Prompt
from tstitch_cli.jobs.ray_engine import Cluster
from tstitch_cli.jobs.request import Request
from tstitch_cli.sample import Identity, Order, batch_of, draw_each, entries_of, job, warm_up, work_of

BATCHES, BATCH, STEPS, ROUNDS = 8, 8, 20, 10
GOAL = 0.05


def seconds(order: Order, identity: Identity, request: Request, drawing: Callable[..., object]) -> float:
    """Seconds in which `drawing` makes the whole job, its folder written."""
    with tempfile.TemporaryDirectory() as folder:
        asked = replace(request, folder=Path(folder) / "pictures")
        began = time.perf_counter()
        with claimed(job(order.work, asked, identity), asked) as manifest:
            for drawn in drawing(manifest.missing):  # type: ignore[attr-defined]
                manifest.record(drawn.files)
        return time.perf_counter() - began


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--rounds", type=positive, default=ROUNDS, help="rounds of four jobs")
    parser.add_argument("--batches", type=positive, default=BATCHES, help="of a job")
    parser.add_argument("--workers", type=positive, default=2, help="on Ray")
    parser.add_argument("--threads", type=positive, default=2, help="of the process, and of all workers together")
    given = parser.parse_args()
    if given.threads % given.workers:
        parser.error("the workers cannot share the threads evenly")
    plan = quick_plan(STEPS, BATCH, names=(SMALL, LARGE))
    work = work_of(plan, plan.rows[plan.chosen])
    order = Order(work, tuple(entries_of(plan.denoisers)))
    request = Request((Prompt("bag"),), Path(), count=given.batches * BATCH)
    batches = request.batches(BATCH)
    with closing(Cluster(None, given.workers, talk.print)) as cluster:
        torch.set_num_threads(given.threads // given.workers)
        identity = cluster.identify(plan, order, allow_stale=True)
        torch.set_num_threads(given.threads)
        family = order.load()
        facts, clock = machine(family), clock_for(family.device)
        warm_up(family, work, batch_of(batches[0]), clock)
        with cluster.ready(order, batches[0], lambda doing, share: talk.print(doing)) as on_ray:
            while cluster.drawing < given.workers:
                list(on_ray(batches[:1]))
            here = partial(draw_each, family, work, given=order.given, clock=clock)
            local_s, ray_s = abba(
                lambda: seconds(order, identity, request, here),
                lambda: seconds(order, identity, request, on_ray),
                given.rounds,
            )
    ratio = estimate(ratio_of_means, ray_s, local_s)
    pictures = len(request.pictures)
    samples = {"one process": Sample.of(local_s), f"{given.workers} workers on Ray": Sample.of(ray_s)}
    rows = [
        (name, f"{s.mean:.2f} ± {s.std:.2f} s", f"{pictures / s.mean:.2f} pictures/s") for name, s in samples.items()
    ]
    print(markdown((f"{pictures} pictures, {given.threads} threads", "time", "throughput"), rows), "", sep="\n")
    share = Estimate(*(100 * (value - 1) for value in (ratio.value, ratio.low, ratio.high)))
    print(
        f"overhead {share.value:+.1f} % (95 % interval {share.low:+.1f} to {share.high:+.1f} %; "
        f"goal at most {GOAL:.0%})"
    )
    protocol = vars(given) | {"batch_size": BATCH, "setting": asdict(plan.setting), "allocation": work.allocation}
    protocol.pop("out")
    save(
        given.out,
        "throughput",
        facts,
        protocol,
        {"job_s": {n: asdict(s) for n, s in samples.items()}, "ratio": asdict(ratio)},
    )


if __name__ == "__main__":
    start(main)
