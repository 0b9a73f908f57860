"""Draws batches on a Ray cluster: each worker is an actor that keeps the denoisers loaded, and a lost one is replaced.

Workers draw and encode; this process alone writes pictures and manifest, so files and hashes are those of a run in one
process, and workers need no file system in common with it but for local weights and LoRAs.
"""

from __future__ import annotations

import functools
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from tstitch_cli.errors import DeviceError, StaleError, TstitchError, UsageError, of_the_machine
from tstitch_cli.jobs.job import differences
from tstitch_cli.jobs.manifest import Progress
from tstitch_cli.jobs.request import Pictures

if TYPE_CHECKING:
    from tstitch_cli.sample import Drawn, Identity, Order
    from tstitch_cli.schema import Plan

P = ParamSpec("P")
R = TypeVar("R")
AHEAD = 2
"""Batches that a worker is given at a time, so that it has the next one when it has finished one."""
MOST_LOST = 10
"""Workers that may be lost without a single batch being finished."""
_INSTALL = 'in the clone of tstitch: pip install -c constraints.txt ".[ray]"'


@dataclass(frozen=True)
class Task:
    """What a worker is told: the plan it must fit, what to load, and the threads that the plan was measured with."""

    plan: Plan
    order: Order
    allow_stale: bool
    threads: int
    folder: str
    """This process's, which relative paths of local weights and LoRAs are relative to."""

    @property
    def resources(self) -> dict[str, float]:
        """What Ray sets aside for a worker: a GPU, or the processors for its threads."""
        if self.plan.setting.device == "cpu":
            return {"num_cpus": self.threads, "num_gpus": 0}
        return {"num_cpus": 1, "num_gpus": 1}


def _returning(work: Callable[P, R]) -> Callable[P, R | TstitchError]:
    """`work`, which returns what a user can mend, for Ray would wrap what is raised."""

    @functools.wraps(work)
    def run(*args: P.args, **kwargs: P.kwargs) -> R | TstitchError:
        try:
            return work(*args, **kwargs)
        except TstitchError as error:
            return error
        except Exception as error:
            if (told := of_the_machine(error)) is None:
                raise
            return told

    return run


class Worker:
    """Runs as an actor."""

    def __init__(self, task: Task) -> None:
        import torch

        self.task = task
        if os.path.isdir(task.folder):
            os.chdir(task.folder)
        torch.set_num_threads(task.threads)

    @_returning
    def identify(self) -> Identity:
        """What there is here to draw with."""
        from tstitch_cli.sample import identify

        return identify(self.task.plan, self.task.order, allow_stale=self.task.allow_stale)

    @_returning
    def load(self, first: Pictures) -> None:
        """Loads the denoisers, fetched where they are missing, and warms up with the batch `first`."""
        from tstitch_cli.clocks import clock_for
        from tstitch_cli.fetching import downloads, hub
        from tstitch_cli.sample import batch_of, warm_up
        from tstitch_cli.zoo.entry import largest

        order = self.task.order
        setting, entries = order.work.setting, order.entries
        missing = hub.missing(
            entries, largest(entries), setting.dtype, control=order.control, embeddings=setting.embeddings
        )
        downloads.fetch(missing, hub.cache())
        self.family = order.load()
        self.clock = clock_for(self.family.device)
        warm_up(self.family, order.work, batch_of(first, order.given), self.clock)

    @_returning
    def draw(self, pictures: Pictures) -> Drawn:
        """Draws one batch."""
        from tstitch_cli.sample import draw_each

        (drawn,) = draw_each(self.family, self.task.order.work, [pictures], self.task.order.given, self.clock)
        return drawn


class Cluster:
    """The engine that draws on the Ray cluster at `address`, or on one of this machine alone where that is None.

    It has `workers`, else as many as there are GPUs, or processors for their threads; `say` is told what a user should
    know.
    """

    def __init__(self, address: str | None, workers: int | None, say: Callable[[str], None]) -> None:
        self.address, self.workers, self.say = address, workers, say
        self._ours = False
        self._pool: _Pool | None = None

    def identify(self, plan: Plan, order: Order, *, allow_stale: bool) -> Identity:
        """What a worker has to draw with; connects to the cluster.

        Raises UsageError where Ray is not installed or no cluster at the address, DeviceError where this machine has no
        room for a worker, and what `sample.identify` raises on the cluster.
        """
        import torch

        if ":" in plan.setting.device:
            raise UsageError(
                f"the plan is for {plan.setting.device}, and a worker on Ray has one device, without a number",
                hint="profile and plan with --device cuda",
            )
        threads = plan.fingerprint.threads if plan.fingerprint else torch.get_num_threads()
        task = Task(plan, order, allow_stale, threads, os.getcwd())
        self._connect(task)
        self._pool = _Pool(task, max(1, self._room(task)) if self.workers is None else self.workers, self.say)
        return self._pool.identify()

    @contextmanager
    def ready(self, order: Order, first: Pictures, bar: Progress) -> Iterator[Callable[..., Iterator[Drawn]]]:
        """Has the workers load, which some do while others draw already."""
        if self._pool is None:
            raise RuntimeError("identify comes first")
        bar(f"starting {self._pool.size} workers", 0.0)
        self._pool.load(first)
        yield self._pool.draw

    @property
    def drawing(self) -> int:
        """How many workers have loaded by now."""
        return 0 if self._pool is None else self._pool.drawing

    def close(self) -> None:
        """Ends the workers, and the cluster where it was made for this run."""
        if self._pool is not None:
            self._pool.close()
        if self._ours:
            import ray

            ray.shutdown()

    def _connect(self, task: Task) -> None:
        try:
            import ray
        except ImportError:
            raise UsageError("--engine ray needs the package ray, which is not installed", hint=_INSTALL) from None
        if not ray.is_initialized():
            # What Ray would tell its makers over the network is not for us to send; and a plan's times are those of
            # processes that others do not go before.
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
            os.environ.setdefault("RAY_worker_niceness", "0")
            quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
            with _handlers_kept():
                if self.address is None:
                    processors = max(os.cpu_count() or 1, (self.workers or 1) * int(task.resources["num_cpus"]))
                    # `local`, for without an address Ray would join a cluster that is running here.
                    ray.init("local", num_cpus=processors, include_dashboard=False, **quiet)
                else:
                    try:
                        ray.init(self.address, **quiet)
                    except (ConnectionError, ValueError, RuntimeError) as error:
                        raise UsageError(
                            f"--address {self.address}: there is no Ray cluster: {_first_line(error)}",
                            hint="start one with `ray start --head`, or leave --address out to use this machine alone",
                        ) from error
            self._ours = True
        if not self._room(task):
            wanted = "a GPU" if task.resources["num_gpus"] else f"{task.threads} processors"
            if self.address is None:
                raise DeviceError(f"this machine has no {wanted} for a worker", hint="profile and plan for what it has")
            self.say(f"the cluster has no {wanted} for a worker yet: waiting")

    def _room(self, task: Task) -> int:
        """How many workers the cluster has room for now."""
        import ray

        there: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        gpus = task.resources["num_gpus"]
        return int(there.get("GPU", 0) // gpus if gpus else there.get("CPU", 0) // task.resources["num_cpus"])


@contextmanager
def _handlers_kept() -> Iterator[None]:
    """Gives SIGTERM back to whoever handled it, for Ray takes it to end this process at once."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    if callable(before) and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, before)


class _Pool:
    """Workers, and the batches that each of them has been given and has not finished."""

    def __init__(self, task: Task, size: int, say: Callable[[str], None]) -> None:
        import ray

        self.size, self.say = size, say
        self._task = ray.put(task)
        self._kind: Any = ray.remote(Worker).options(**task.resources)
        self._starting: dict[Any, Any] = {}
        """What a worker that does not draw yet answers with -> the worker."""
        self._given: dict[Any, deque[tuple[Any, Pictures]]] = {}
        """A worker that draws -> what it answers with and the batch, in the order they were given."""
        self._again: deque[Pictures] = deque()
        """The batches of workers that were lost."""
        self._lost = 0
        """Workers since a batch was last finished."""
        for _ in range(size):
            self._start()

    def identify(self) -> Identity:
        """What there is to draw with where the first worker to answer runs; the others must have the same."""
        while True:
            if answered := self._answer(self._starting):
                self._scout, self._identity = answered
                return self._identity

    @property
    def drawing(self) -> int:
        """How many workers have loaded."""
        return len(self._given)

    def load(self, first: Pictures) -> None:
        """From now on workers load and warm up with the batch `first`, the one that has answered before the others."""
        self._first = first
        self._starting[self._scout.load.remote(first)] = self._scout

    def draw(self, batches: Iterable[Pictures]) -> Iterator[Drawn]:
        """Draws `batches`, each of which is taken only when a worker has room for it; in the order they are finished.

        Raises DeviceError where worker after worker is lost, StaleError where one has other weights or versions, and
        whatever else a worker could not do.
        """
        from tstitch_cli.sample import Identity

        left = iter(batches)
        while True:
            for worker, given in self._given.items():
                while len(given) < AHEAD:
                    pictures = self._again.popleft() if self._again else next(left, None)
                    if pictures is None:
                        break
                    given.append((worker.draw.remote(pictures), pictures))
            drawing = {given[0][0]: worker for worker, given in self._given.items() if given}
            if self._given and not drawing:
                return
            if not (answered := self._answer({**drawing, **self._starting})):
                continue
            worker, found = answered
            if worker in self._given:
                self._given[worker].popleft()
                self._lost = 0
                yield found
            elif isinstance(found, Identity):
                if found != self._identity:
                    different = differences(asdict(self._identity), asdict(found))
                    raise StaleError(
                        f"two workers would not draw the same: {'; '.join(different)}",
                        hint="give all nodes the same packages and weights",
                    )
                self._starting[worker.load.remote(self._first)] = worker
            else:
                self._given[worker] = deque()

    def close(self) -> None:
        """Ends all workers."""
        import ray

        for worker in [*self._given, *self._starting.values()]:
            ray.kill(worker)

    def _start(self) -> None:
        worker = self._kind.remote(self._task)
        self._starting[worker.identify.remote()] = worker

    def _answer(self, pending: Mapping[Any, Any]) -> tuple[Any, Any] | None:
        """The first of the workers in `pending` to answer, and its answer; None where one was lost and is replaced."""
        import ray

        (answer,), _ = ray.wait(list(pending))
        worker = pending[answer]
        try:
            found = ray.get(answer)
        except ray.exceptions.RayTaskError:  # a bug of ours
            raise
        except ray.exceptions.RayError as error:
            self._replace(worker, error)
            return None
        if isinstance(found, TstitchError):
            raise found
        self._starting.pop(answer, None)
        return worker, found

    def _replace(self, worker: Any, error: Exception) -> None:
        import ray

        self._lost += 1
        if self._lost > MOST_LOST:
            raise DeviceError(
                f"{self._lost} workers were lost, one after another, the last one so: {_first_line(error)}",
                hint="is there memory for them? --workers 1 starts one, and `ray status` shows the cluster",
            ) from error
        self.say(f"a worker was lost and is replaced: {_first_line(error)}")
        ray.kill(worker)  # it may only have been out of reach
        self._starting = {answer: starting for answer, starting in self._starting.items() if starting != worker}
        # The batch that it was at comes last, for it may be what workers die of.
        had = [pictures for _, pictures in self._given.pop(worker, ())]
        self._again.extendleft(reversed(had[1:]))
        self._again.extend(had[:1])
        self._start()


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:200]
