"""Measures agreement: how near every denoiser's predictions are to the largest one's at the same x_t.

Along trajectories of the largest denoiser every other one is called with the same arguments, and what the pipeline's
guidance would make of its answer is compared with what it made of the largest one's, picture by picture. Caches are
emptied for every call, so what is compared are the denoisers as they are, not what a cache makes of them.

From that follows the predicted loss of an allocation: how far it moves the final latent. In the variance-exploding
form y = x / alpha, s = sigma / alpha, the probability-flow ODE is dy / ds = eps(y, s) (Song et al., 2021; Karras et
al., 2022, equation 4). An error d in eps during a step from s to s' moves y by |s - s'| d. For data of unit variance
in every direction the exact flow is linear, y(0) = y(s') / sqrt(1 + s'^2), so that the error, which is in y from s'
on, reaches the final latent shrunk by that factor:

    loss = sum over steps of |s - s'| / sqrt(1 + s'^2) x rms(eps_k - eps_largest)

Errors are added and not their squares: neighbouring steps of one denoiser err in nearly the same direction. Held
against measured distances by `python -m tests.benchmarks.loss`, this sum is the best of the ways tried over all orders
of the denoisers; from small to large alone, the root of the sum of squares ranks rows a little better, within the
intervals, but is further from their size.

For a prediction other than eps the weight carries the conversion: d eps = alpha d v = (alpha / sigma) d x0; for a flow,
x = (1 - s) x0 + s eps, the same argument gives |s - s'| / sqrt((1 - s')^2 + s'^2) for errors in the velocity.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tstitch_cli import finite
from tstitch_cli.bridges import noise_levels
from tstitch_cli.clocks import HostClock
from tstitch_cli.denoisers import Family
from tstitch_cli.schema import Agreement, Closeness
from tstitch_cli.trajectory import Batch, run

NONLINEAR = 0.02
"""Relative residual above which what the pipeline hands its scheduler is no linear function of the prediction."""


def measure(family: Family, batches: Sequence[Batch], counts: Sequence[int]) -> Agreement | None:
    """Agreement of every denoiser of `family` with its largest over the trajectories of `batches`.

    `counts` (T,) are the evaluations of each step. None where guidance is not linear in the prediction, so that
    nothing can be said of what it would have made of another one.

    Raises what `trajectory.run` raises, DeviceError too where an answer is not finite.
    """
    largest = family.stitched.host
    others = [name for name in family.denoisers if name != largest]
    found: list[dict[str, npt.NDArray[np.float64]]] = []
    for batch in batches:
        with _compared(family, largest, others) as compared:
            run(family, batch, largest, HostClock(), strict=False)
        if compared.nonlinear:
            return None
        found.append({name: np.stack(values) for name, values in compared.values.items()})
    levels = levels_run(family.pipeline.scheduler, counts)
    ends = np.cumsum(counts)
    starts = ends - np.asarray(counts)

    def per_step(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.stack([values[a:b].mean(axis=0) for a, b in zip(starts, ends, strict=True)])

    denoisers: dict[str, Closeness] = {}
    for name in others:
        both = per_step(np.concatenate([each[name] for each in found], axis=1))  # (T, pictures, 2)
        cosine, rms = both[..., 0], both[..., 1]
        denoisers[name] = Closeness(
            cosine=_rounded(cosine.mean(axis=1)),
            cosine_std=_rounded(cosine.std(axis=1)),
            rms=tuple(_rounded(picture) for picture in rms.T),
        )
    weights = step_weights(levels, starts, _prediction(family.pipeline.scheduler))
    if noise_levels.is_trigflow(family.pipeline.scheduler):
        # Latents are run at the deviation of the data, by which what they end as is divided.
        weights = weights / family.pipeline.scheduler.config.sigma_data
    return Agreement(largest, _rounded(weights), denoisers)


def levels_run(scheduler: Any, counts: Sequence[int]) -> npt.NDArray[np.float64]:
    """(E + 1, 2): alpha and sigma of the evaluations that were made; in image-to-image, the scheduler's last ones."""
    return noise_levels.of_trajectory(scheduler)[-1 - sum(counts) :]


def step_weights(
    levels: npt.NDArray[np.float64], starts: npt.NDArray[np.integer], prediction: str
) -> npt.NDArray[np.float64]:
    """(T,): how far an error of 1 in each step's prediction moves the final latent; see the module.

    `levels` (E + 1, 2) are alpha and sigma, `starts` (T,) the evaluation that each step begins with.
    """
    alpha, sigma = levels[starts].T
    alpha_after, sigma_after = levels[np.append(starts[1:], len(levels) - 1)].T
    if prediction == "flow":
        return np.abs(sigma - sigma_after) / np.hypot(alpha_after, sigma_after)
    # Of v, which is alpha noise - sigma x0, an error moves both: a step turns it by the angle between the two levels.
    of_v: npt.NDArray[np.float64] = np.abs(sigma * alpha_after - sigma_after * alpha)
    return of_v / {"epsilon": alpha, "v_prediction": 1.0, "sample": sigma}[prediction]


class _Compared:
    """What one trajectory showed: for every other denoiser, per evaluation, (pictures, 2) cosines and rms."""

    def __init__(self, others: Sequence[str]) -> None:
        self.values: dict[str, list[npt.NDArray[np.float64]]] = {name: [] for name in others}
        self.calls: list[dict[str, torch.Tensor]] = []
        self.nonlinear = False

    def stepped(self, largest: str, guided: torch.Tensor, x: torch.Tensor | None = None) -> None:
        """The scheduler was given `guided` (B, C, ...), which the pipeline made of the calls since the last step.

        And of `x` (B, C, ...), the latents, where those are given.
        """
        calls, self.calls = self.calls, []
        if not calls:
            return
        pictures = len(guided)
        target = guided.double()

        def parts(name: str) -> torch.Tensor:
            chunks = [chunk[:, : guided.shape[1]] for call in calls for chunk in call[name].double().split(pictures)]
            return torch.stack(chunks)

        own = parts(largest)
        rest = own[:0] if x is None else x.double()[None]
        # Guidance is linear: guided = sum of c_j part_j. Which part is the conditional one, and how they are
        # weighed, differs from pipeline to pipeline, so c is read off what it did with the largest one's parts.
        columns = torch.cat([own, rest]).flatten(1).T
        weights = torch.linalg.lstsq(columns.cpu(), target.flatten().unsqueeze(1).cpu(), driver="gelsd").solution
        weights = weights.squeeze(1).to(own.device)
        of_parts, of_rest = weights[: len(own)], weights[len(own) :]
        unchanged = torch.tensordot(of_rest, rest, dims=1)
        reached = torch.tensordot(of_parts, own, dims=1) + unchanged
        if (reached - target).norm() > NONLINEAR * target.norm():
            self.nonlinear = True
        for name, values in self.values.items():
            theirs = (torch.tensordot(of_parts, parts(name), dims=1) + unchanged).flatten(1)
            mine = reached.flatten(1)
            cosine = torch.nn.functional.cosine_similarity(theirs, mine, dim=1)
            rms = (theirs - mine).square().mean(dim=1).sqrt()
            values.append(torch.stack([cosine, rms], dim=1).cpu().numpy())


@contextmanager
def _compared(family: Family, largest: str, others: Sequence[str]) -> Iterator[_Compared]:
    """Every call of the largest denoiser is repeated by the others, and every step of the scheduler is looked at."""
    compared = _Compared(others)
    scheduler, stitched = family.pipeline.scheduler, family.stitched

    def also(args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        outputs = [output, *stitched.ask(others, args, kwargs)]
        for name, each in zip([largest, *others], outputs, strict=True):
            finite.require(family, name, each)
        compared.calls.append(dict(zip([largest, *others], map(_tensor, outputs), strict=True)))

    plain: Callable[..., Any] = scheduler.step
    # Of what a flow predicts and the latents, the pipeline makes what TrigFlow predicts.
    mixed = noise_levels.is_trigflow(scheduler)

    @functools.wraps(plain)
    def step(*args: Any, **kwargs: Any) -> Any:
        given = dict(zip(("model_output", "timestep", "sample"), args, strict=False)) | kwargs
        compared.stepped(largest, given["model_output"], given["sample"] if mixed else None)
        return plain(*args, **kwargs)

    stitched.answered, scheduler.step = also, step
    try:
        yield compared
    finally:
        del scheduler.step
        stitched.answered = None


def _tensor(output: Any) -> torch.Tensor:
    """The prediction, detached from what the denoiser's output class is."""
    found = output if isinstance(output, torch.Tensor) else output[0]
    return found.detach()


def _prediction(scheduler: Any) -> str:
    if noise_levels.is_flow(scheduler):
        return "flow"
    # What TrigFlow predicts is v (Lu & Song, 2024, section 3): cos(t) noise - sin(t) x0.
    return "v_prediction" if noise_levels.is_trigflow(scheduler) else scheduler.config.get("prediction_type", "epsilon")


def _rounded(values: npt.NDArray[np.float64]) -> tuple[float, ...]:
    """Five significant digits are more than a measurement has."""
    return tuple(float(f"{value:.5g}") for value in values)
