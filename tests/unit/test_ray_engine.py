"""The pool of workers, on a stand-in for Ray whose workers are lost when a test says so."""

from __future__ import annotations

import os
import random
import signal
import sys
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from tstitch_cli.commands.stopping import finishing_first
from tstitch_cli.errors import DeviceError, ExitStatus, StaleError, TstitchError
from tstitch_cli.jobs import ray_engine
from tstitch_cli.jobs.ray_engine import AHEAD, MOST_LOST, _Pool
from tstitch_cli.jobs.request import Picture, Pictures
from tstitch_cli.sample import Identity

SAME = Identity({"small": "1"}, {"torch": "2"})
BATCHES = tuple((Picture(index, "a fox"),) for index in range(40))


class RayError(Exception):
    pass


class LostError(RayError):
    pass


class Worker:
    """An actor; `answers` tells what it answers to a call, or raises."""

    def __init__(self, answers: Callable[[Worker, str, Any], Any]) -> None:
        self.answers, self.alive = answers, True

    def __getattr__(self, method: str) -> Any:
        return SimpleNamespace(remote=lambda *given: (object(), self, method, given))


class FakeRay:
    """Answers come in random order, but those of one worker in the order they were asked for."""

    exceptions = SimpleNamespace(RayError=RayError, RayTaskError=type("RayTaskError", (RayError,), {}))

    def __init__(self, answers: Callable[[Worker, str, Any], Any]) -> None:
        self.answers, self.workers, self.order = answers, list[Worker](), random.Random(0)

    def put(self, value: Any) -> Any:
        return value

    def remote(self, kind: Any) -> Any:
        return SimpleNamespace(options=lambda **resources: SimpleNamespace(remote=self._start))

    def _start(self, task: Any) -> Worker:
        self.workers.append(Worker(self.answers))
        return self.workers[-1]

    def wait(self, pending: list[Any]) -> tuple[list[Any], list[Any]]:
        assert pending, "waiting for nothing hangs"
        return [self.order.choice(pending)], []

    def get(self, answer: Any) -> Any:
        _, worker, method, given = answer
        if not worker.alive:
            raise LostError("the worker is dead")
        try:
            return worker.answers(worker, method, *given)
        except LostError:
            worker.alive = False
            raise

    def kill(self, worker: Worker) -> None:
        worker.alive = False


def well(worker: Worker, method: str, given: Any = None) -> Any:
    """A worker that does what it is told; what it draws is the batch itself."""
    return {"identify": SAME, "load": None, "draw": given}[method]


def pool(
    monkeypatch: pytest.MonkeyPatch, answers: Callable[..., Any], size: int = 3
) -> tuple[_Pool, FakeRay, list[str]]:
    ray, said = FakeRay(answers), list[str]()
    monkeypatch.setitem(sys.modules, "ray", ray)
    made = _Pool(SimpleNamespace(resources={}), 3, said.append)  # type: ignore[arg-type]
    return made, ray, said


def drawn(made: _Pool, batches: Any = BATCHES) -> list[Any]:
    assert made.identify() == SAME
    made.load(BATCHES[0])
    return list(made.draw(batches))


def test_no_worker_is_given_more_than_two_batches_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = 0

    def counted() -> Iterator[Pictures]:
        nonlocal taken
        for batch in BATCHES:
            taken += 1
            yield batch

    made, _, said = pool(monkeypatch, well)
    made.identify()
    made.load(BATCHES[0])
    for finished, _ in enumerate(made.draw(counted()), 1):
        assert taken <= finished + 3 * AHEAD
    assert (finished, taken, said) == (len(BATCHES), len(BATCHES), [])


@pytest.mark.parametrize("seed", range(10))
def test_each_batch_is_drawn_once_whichever_workers_are_lost(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    chance, lost = random.Random(seed), 0

    def sometimes(worker: Worker, method: str, given: Any = None) -> Any:
        nonlocal lost
        if chance.random() < 0.2:
            lost += 1
            raise LostError("killed")
        return well(worker, method, given)

    made, ray, said = pool(monkeypatch, sometimes)
    assert sorted(drawn(made), key=BATCHES.index) == list(BATCHES)
    assert lost
    assert len(said) == lost
    assert len(ray.workers) == 3 + lost
    made.close()
    assert not any(worker.alive for worker in ray.workers)


def test_nothing_left_to_draw_ends_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made, _, _ = pool(monkeypatch, well)
    assert drawn(made, ()) == []


def test_a_batch_that_kills_every_worker_comes_last_and_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def poisoned(worker: Worker, method: str, given: Any = None) -> Any:
        if method == "draw" and given == BATCHES[5]:
            raise LostError("killed\nby the kernel")
        return well(worker, method, given)

    made, _, _ = pool(monkeypatch, poisoned)
    made.identify()
    made.load(BATCHES[0])
    finished: list[Any] = []
    with pytest.raises(DeviceError, match=rf"{MOST_LOST + 1} workers were lost.*: killed$"):
        finished.extend(made.draw(BATCHES))
    assert sorted(finished, key=BATCHES.index) == [batch for batch in BATCHES if batch != BATCHES[5]]


def test_a_worker_with_other_weights_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def others(worker: Worker, method: str, given: Any = None) -> Any:
        mine = worker is not ray.workers[0] and method == "identify"
        return Identity({"small": "9"}, SAME.versions) if mine else well(worker, method, given)

    made, ray, _ = pool(monkeypatch, others)
    first = made.identify()
    made.load(BATCHES[0])
    with pytest.raises(StaleError, match=r"weights\.small was"):
        list(made.draw(BATCHES))
    assert first.versions == SAME.versions


@pytest.mark.parametrize("where", ["identify", "load", "draw"])
def test_what_a_worker_cannot_do_is_told_as_it_is(monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    def unable(worker: Worker, method: str, given: Any = None) -> Any:
        return DeviceError("out of memory", hint="less") if method == where else well(worker, method, given)

    made, _, _ = pool(monkeypatch, unable)
    with pytest.raises(TstitchError, match="out of memory") as caught:
        drawn(made)
    assert caught.value.hint == "less"


def asks(at: str) -> Callable[..., Any]:
    """Workers that do well, and a Ctrl-C when one of them is to do `at` for the first time."""
    asked = False

    def answers(worker: Worker, method: str, given: Any = None) -> Any:
        nonlocal asked
        if method == at and not asked:
            asked = True
            os.kill(os.getpid(), signal.SIGINT)
        return well(worker, method, given)

    return answers


def test_ctrl_c_while_no_worker_has_loaded_waits_for_none(monkeypatch: pytest.MonkeyPatch) -> None:
    made, _, _ = pool(monkeypatch, asks("load"))
    made.identify()
    made.load(BATCHES[0])
    with finishing_first() as stopping, pytest.raises(KeyboardInterrupt):
        list(made.draw(stopping.until_asked(BATCHES)))
    assert made.drawing == 0


def test_ctrl_c_while_workers_draw_waits_for_what_they_have(monkeypatch: pytest.MonkeyPatch) -> None:
    made, _, _ = pool(monkeypatch, asks("draw"))
    made.identify()
    made.load(BATCHES[0])
    with finishing_first() as stopping:
        finished: list[Any] = list(made.draw(stopping.until_asked(BATCHES)))
    assert stopping.asked
    assert 1 <= len(finished) <= 3 * AHEAD
    assert sorted(finished, key=BATCHES.index) == list(BATCHES[: len(finished)])


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (MemoryError(), ExitStatus.DEVICE),
        (OSError(28, "No space left on device", "/cache/x"), ExitStatus.BAD_FILE),
        (DeviceError("no GPU"), ExitStatus.DEVICE),
    ],
)
def test_what_a_workers_machine_cannot_is_returned_and_not_wrapped(
    monkeypatch: pytest.MonkeyPatch, error: Exception, status: ExitStatus
) -> None:
    def fail(*given: Any, **named: Any) -> None:
        raise error

    monkeypatch.setattr("tstitch_cli.sample.identify", fail)
    monkeypatch.setattr("torch.set_num_threads", lambda number: None)
    worker = ray_engine.Worker(SimpleNamespace(folder=".", threads=1, plan=None, order=None, allow_stale=True))  # type: ignore[arg-type]
    found = worker.identify()
    assert isinstance(found, TstitchError)
    assert found.status == status
    error = KeyError("a bug")
    with pytest.raises(KeyError):
        worker.identify()
