"""The denoiser that switches: it takes the denoiser's place in any diffusers pipeline and runs an allocation exactly.

The switch happens at the denoiser, not in the pipeline, so no pipeline code is copied and pipelines without a step
callback work too. When to switch is told by the scheduler: an evaluation ends when the scheduler is stepped after
the denoiser was called, however often the denoiser was called for it (a pipeline may run the two halves of guidance
one after the other) and whatever timestep it is shown (units and offsets differ between pipelines).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn

from tstitch_cli.errors import UsageError
from tstitch_cli.networks import residuals
from tstitch_cli.zoo.encoders import Kept

_PRIVATE_HOOKS = frozenset({"_hf_hook", "_old_forward", "_diffusers_hook", "_compiled_call_impl", "_orig_mod"})
"""State that other libraries hang on one module; showing the host's as the switch's own would run it twice."""
_OF_ALL = frozenset(
    {
        "set_attention_slice",
        "set_attention_backend",
        "reset_attention_backend",
        "fuse_qkv_projections",
        "unfuse_qkv_projections",
        "_reset_stateful_cache",
    }
)
"""Methods by which a pipeline changes how its denoiser computes: what it asks of one, all have to do."""


class StepClock:
    """Counts the evaluations of one trajectory."""

    def __init__(self) -> None:
        self.evaluation = 0
        self.called = False
        self.boundary: Callable[[], None] = lambda: None
        """Called where an evaluation ends, and before the first begins."""

    def reset(self) -> None:
        """A new trajectory begins."""
        self.evaluation, self.called = 0, False

    def called_now(self) -> int:
        """The denoiser is being called; returns which evaluation that is."""
        if self.evaluation == 0 and not self.called:
            self.boundary()
        self.called = True
        return self.evaluation

    def stepped(self) -> None:
        """The scheduler was stepped; a second step without a call in between belongs to the same evaluation."""
        if self.called:
            self.called = False
            self.evaluation += 1
            self.boundary()


def attach(clock: StepClock, scheduler: Any) -> None:
    """Makes `scheduler`, a diffusers scheduler, tell `clock` of every step, in place.

    The class is replaced by a subclass of the same name with the same signatures, which pipelines inspect.
    """
    plain = type(scheduler)

    @functools.wraps(plain.step)
    def step(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = plain.step(self, *args, **kwargs)
        clock.stepped()
        return result

    @functools.wraps(plain.set_timesteps)
    def set_timesteps(self: Any, *args: Any, **kwargs: Any) -> Any:
        clock.reset()
        return plain.set_timesteps(self, *args, **kwargs)

    names = {"step": step, "set_timesteps": set_timesteps, "__module__": plain.__module__, "__doc__": plain.__doc__}
    scheduler.__class__ = type(plain.__name__, (plain,), names)


class _Now:
    """What changes with every call, apart: to set an attribute of a module takes as long as the rest of a switch."""

    def __init__(self) -> None:
        self.present: int | None = None
        """Who was called last in this trajectory."""
        self.last: Any = None
        """What the last call was answered."""
        self.calls = 0
        """How many calls the evaluation that is being made has seen."""


class StitchedDenoiser(nn.Module):
    """Several denoisers in the place of one.

    To whoever asks, it is the host: the same class to `isinstance`, the same config, dtype and device, so that LoRA,
    offload and saving find what they look for. Its `forward` passes each call to the denoiser whose turn it is.
    """

    def __init__(self, denoisers: Mapping[str, nn.Module], host: str, clock: StepClock) -> None:
        """`denoisers` by name; `host` names the one the pipeline was made for, which is the largest."""
        super().__init__()
        self._names = tuple(denoisers)
        self._stages = nn.ModuleList(denoisers.values())
        self._by_name = dict(zip(self._names, range(len(self._names)), strict=True))
        self._host = self._by_name[host]
        self.clock = clock
        self._allocation: Sequence[str] | str = host
        self._turns: Sequence[int] = ()
        self._evaluations: Callable[[], int] = lambda: 0
        self._realised: list[int] = []
        self._now = _Now()
        self.entering: list[Callable[[str], None]] = []
        """Each is called with a denoiser's name before its first evaluation of a run of them, the first included."""
        self.answered: Callable[[tuple[Any, ...], dict[str, Any], Any], None] | None = None
        """Where set, called with the arguments and the output of every call."""
        self.around: Callable[[int, str, Callable[[], Any]], Any] | None = None
        """Where set, given the evaluation, the denoiser's name and the call to make, and answers in its place."""
        self.kept: Mapping[str, Kept] = {}
        """Of the denoisers that have fewer blocks than the pipeline's ControlNet adds to, those that they have."""
        self.context = "only"
        """Which of the calls that make one evaluation this is, as the pipeline names them (cond, uncond)."""

    @property
    def host(self) -> str:
        """The name of the denoiser that the pipeline was made for, which is the largest."""
        return self._names[self._host]

    def follow(self, allocation: Sequence[str] | str, evaluations: Callable[[], int]) -> None:
        """Sets who takes which evaluation of the next trajectories: a name for each, or one name for all.

        `evaluations` is asked at the first call of a trajectory how many there will be.
        """
        self._allocation, self._evaluations = allocation, evaluations
        self._turns, self._realised = (), []
        self._now.last = None
        self.clock.reset()

    @property
    def realised(self) -> tuple[str, ...]:
        """The denoiser of every evaluation made since the trajectory began; it equals the allocation or is a bug."""
        return tuple(self._names[i] for i in self._realised)

    @property
    def planned(self) -> int:
        """How many evaluations the trajectory that has begun is to have; 0 before its first."""
        return len(self._turns)

    @property
    def turn(self) -> str | None:
        """The denoiser whose evaluation, number `clock.evaluation`, is being made; None before, between and after."""
        evaluation = self.clock.evaluation
        return self._names[self._turns[evaluation]] if self.clock.called and evaluation < self.planned else None

    @property
    def part(self) -> str:
        """Which of the calls that make one evaluation the present one is: as the pipeline names it, and its number.

        Some pipelines call for prompt and guidance apart without a name for either (Kandinsky).
        """
        return f"{self.context} {self._now.calls}"

    @property
    def last(self) -> Any:
        """What the last call was answered, None before the first."""
        return self._now.last

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Calls the denoiser whose turn it is, with the pipeline's own arguments.

        Raises UsageError where the pipeline makes another number of evaluations than the allocation has.
        """
        begins = self.clock.evaluation == 0 and not self.clock.called
        self._now.calls = self._now.calls + 1 if self.clock.called else 1
        evaluation = self.clock.called_now()
        if begins:
            self._turns = self._assign()
            self._realised, self._now.present = [], None
        if evaluation >= len(self._turns):
            raise UsageError(
                f"the pipeline makes more than the {len(self._turns)} evaluations it announced",
                hint="this scheduler cannot be stitched in this pipeline; choose another",
            )
        turn = self._turns[evaluation]
        if evaluation == len(self._realised):
            self._realised.append(turn)
        if self.around is None:
            output = self._call(turn, args, kwargs)
        else:
            output = self.around(evaluation, self._names[turn], functools.partial(self._call, turn, args, kwargs))
        self._now.last = output
        if self.answered is not None:
            self.answered(args, kwargs, output)
        return output

    def _call(self, turn: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self._now.present != turn:
            self._now.present = turn
            self._enter(turn)
        return self._answer(turn, args, kwargs)

    def ask(self, names: Sequence[str], args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
        """What the denoisers `names` answer to these arguments, out of their turn and without a trace in `realised`."""
        outputs = []
        for turn in map(self._by_name.__getitem__, names):
            self._enter(turn)
            outputs.append(self._answer(turn, args, kwargs))
        if self._realised:
            self._enter(self._realised[-1])
        return outputs

    def _answer(self, turn: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        kept = self.kept.get(self._names[turn])
        return self._stages[turn](*args, **(kwargs if kept is None else residuals.left(kept, kwargs)))

    def _enter(self, turn: int) -> None:
        for enter in self.entering:
            enter(self._names[turn])

    @contextmanager
    def cache_context(self, name: str, **details: Any) -> Iterator[None]:
        """Takes the place of the host's method of the same name, through which pipelines tell caches their calls apart.

        The host would tell its own caches alone; `context` is for those of every denoiser.
        """
        before, self.context = self.context, name
        try:
            yield
        finally:
            self.context = before

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compiles each denoiser in place, with `torch.compile`'s arguments.

        Not the switch: who is next is no tensor, so a compiled switch would be compiled again at every step.
        """
        for stage in self._stages.children():
            stage.compile(*args, **kwargs)

    def _assign(self) -> Sequence[int]:
        count = self._evaluations()
        if isinstance(self._allocation, str):
            return (self._by_name[self._allocation],) * count
        if len(self._allocation) != count:
            raise UsageError(
                f"the pipeline makes {count} evaluations where the allocation has {len(self._allocation)}",
                hint="plan for the scheduler and the number of steps that the pipeline runs",
            )
        return [self._by_name[name] for name in self._allocation]

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name in _PRIVATE_HOOKS or name == "_stages":
                raise
            found = getattr(self._stages[self._host], name)
            return functools.partial(self._ask_all, name) if name in _OF_ALL else found

    def _ask_all(self, method: str, *args: Any, **kwargs: Any) -> None:
        for stage in self._stages:
            if hasattr(stage, method):
                getattr(stage, method)(*args, **kwargs)

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        stages = self.__dict__.get("_modules", {}).get("_stages")
        return type(self) if stages is None else stages[self._host].__class__  # a bridge says its denoiser's


def stitch(pipeline: Any, component: str, denoisers: Mapping[str, nn.Module], host: str) -> StitchedDenoiser:
    """Puts a stitched denoiser in the place of `pipeline.<component>` and returns it; see `StitchedDenoiser.follow`.

    Of what a ControlNet of the pipeline adds, a denoiser with fewer blocks is given what is meant for those it has.

    Raises UsageError where the ControlNet does not fit a denoiser; the pipeline is as it was then.
    """
    net = getattr(pipeline, "controlnet", None)
    kept = {} if net is None else residuals.kept_by_each(net, denoisers)
    clock = StepClock()
    attach(clock, pipeline.scheduler)
    stitched = StitchedDenoiser(denoisers, host, clock)
    stitched.kept = kept
    setattr(pipeline, component, stitched)
    return stitched


def planned_evaluations(pipeline: Any) -> int:
    """How many evaluations the trajectory that `pipeline` has begun will make."""
    counted = getattr(pipeline, "_num_timesteps", None)
    return int(counted) if counted else len(pipeline.scheduler.timesteps)
