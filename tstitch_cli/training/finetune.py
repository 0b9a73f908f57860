"""The stage that finetunes: a plan and a denoiser of it -> the denoiser trained on its own timesteps, in the zoo."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tstitch_cli import components, documents, schedulers
from tstitch_cli.allocation import Allocation
from tstitch_cli.bridges.matching import Frame, Match, frame
from tstitch_cli.bridges.running import form_of
from tstitch_cli.errors import StaleError, UsageError
from tstitch_cli.measuring import fingerprint
from tstitch_cli.schema import Plan, Setting
from tstitch_cli.training import curve
from tstitch_cli.training.adapters import Adapter
from tstitch_cli.training.conditions import Conditions, Interview
from tstitch_cli.training.datasets import Dataset
from tstitch_cli.training.interval import IntervalRecipe
from tstitch_cli.training.latent_file import Latents, encoded
from tstitch_cli.training.loop import Progress, Schedule, examples_drawn, train
from tstitch_cli.training.loop import Record as Trained
from tstitch_cli.training.spans import Spans, spans_of
from tstitch_cli.zoo import finetuned, standalone, zoo_file
from tstitch_cli.zoo.entry import Entry, largest

WARMUP = 0.05
"""Share of the batches in which the rate rises to its full height."""


@dataclass(frozen=True)
class Options:
    """How it is trained."""

    batches: int = 500
    batch_size: int = 64
    rate: float = 3e-5
    constant: bool = False
    """Whether the rate stays; else it falls to nothing along a cosine."""
    seed: int = 0
    lora: int | None = None
    """Train a LoRA of this rank in place of all weights."""
    fast: bool = True
    """bfloat16 autocast."""

    @property
    def schedule(self) -> Schedule:
        """The training loop's own form of it."""
        warmup = max(1, round(WARMUP * self.batches))
        hold = 1.0 if self.constant else 0.0
        return Schedule(self.batches, self.batch_size, self.rate, warmup=warmup, weight_decay=0.0, hold=hold)


def refuse(plan: Plan, name: str, allocation: Allocation) -> None:
    """Raises before anything is loaded what can be told from the plan alone.

    Raises:
        UsageError: the denoiser is not in the plan or gets no steps, or what it draws or how it was made is not
            supported.
        StaleError: the plan was measured with random weights.
    """
    known = [denoiser.name for denoiser in plan.denoisers]
    if name not in known:
        raise UsageError(f"the plan has no denoiser {name}", hint=f"it has {', '.join(known)}")
    if not any(steps for denoiser, steps in allocation if denoiser == name):
        raise UsageError(
            f"the plan gives {name} no steps, so there is nothing to train it for",
            hint="take another row with --row, or plan for another budget",
        )
    if plan.fingerprint is not None and plan.fingerprint.random:
        raise StaleError(
            "the plan was measured with random weights, and those are nothing to go on from",
            hint="profile without --random-weights and plan again",
        )
    if plan.setting.frames is not None:
        raise UsageError("denoisers of videos cannot be finetuned", hint="give a plan for pictures")
    if plan.setting.inpaint or plan.setting.control is not None or plan.setting.strength is not None:
        raise UsageError(
            "a plan for image-to-image, inpainting or ControlNet tells not what a denoiser draws from noise",
            hint="profile and plan without --strength, --inpaint and --control; what is finetuned serves those too",
        )


def require_same_weights(plan: Plan, name: str, entries: Sequence[Entry]) -> None:
    """Raises StaleError where the plan was made with other weights of the denoiser than are here."""
    entry = next(each for each in entries if each.name == name)
    if plan.fingerprint is not None and name in plan.fingerprint.weights:
        then = {name: plan.fingerprint.weights[name]}
        now = {name: components.digest_of(entry)}
        if then != now:
            raise StaleError(
                f"the plan was made with other weights of {name}: {then[name]}, here are {now[name]}",
                hint="profile and plan again",
            )


class Student:
    """A denoiser loaded with its pipeline, and what the plan's trajectory means to it."""

    def __init__(self, entries: Sequence[Entry], setting: Setting, name: str, dtype: torch.dtype) -> None:
        """`entries` are the plan's, of which `name` is loaded, with the scheduler that the plan's trajectory runs.

        Raises what loading raises, and UsageError for a denoiser that plain training would harm.
        """
        by_name = {entry.name: entry for entry in entries}
        self.entry, host = by_name[name], largest(entries, setting.host)
        if self.entry.defaults.scheduler in schedulers.DISTILLED:
            raise UsageError(
                f"{name} was distilled to draw in a few steps, which training on noised pictures would undo",
                hint="finetune the denoiser that it was distilled from, or another one of the plan",
            )
        self.denoiser = components.denoiser(self.entry, dtype)
        self.pipeline = components.pipeline(self.entry, self.denoiser, dtype)
        if setting.embeddings is None and host.conditioning.kind == "text" and host.parts != self.entry.parts:
            # The plan's prompts all go through the text encoder of the largest denoiser.
            for part, module in components.text_pipeline(host, dtype).components.items():
                if part.startswith(("text_encoder", "tokenizer")):
                    self.pipeline.register_modules(**{part: module})
        running = by_name.get(setting.schedule or host.name, host)
        config = schedulers.with_noise(self.pipeline.scheduler.config, running.noise)
        self.pipeline.scheduler = schedulers.build(setting.scheduler, config)
        self.pipeline.set_progress_bar_config(disable=True)
        scale = host.latent_space.scaling_factor or 1.0
        self.match = Match(Frame(running.noise, scale), frame(self.entry, scale))
        self.interview = Interview(self.entry, self.pipeline, self.denoiser, setting)
        self.setting = setting

    def to(self, device: torch.device) -> None:
        """Moves all of it to `device`."""
        self.pipeline.to(device)

    def spans(self, allocation: Allocation, evaluations: Sequence[int]) -> Spans:
        """The timesteps that it is trained on; `evaluations` (T,) are those of each step."""
        timesteps = self.interview.ask_for_nothing().timesteps
        return spans_of(self.entry.name, allocation, timesteps[-sum(evaluations) :], evaluations, self.match)

    def latents(
        self,
        data: Dataset,
        work: Path,
        progress: Callable[[int, int], None],
        some: torch.Tensor | None = None,
    ) -> Latents:
        """The latents of `data` at the plan's size, kept in `work`; of `some` pictures (D,) where those suffice."""
        config, size = self.pipeline.vae.config, self.setting.size
        scale = (float(config.get("shift_factor") or 0.0), float(config.get("scaling_factor") or 1.0))
        known_by = components.digest_of(replace(self.entry, source=self.entry.parts, subfolder="vae"))
        path = work / f"latents-{data.digest}-{known_by}-{size}.npy"
        # In full precision, since some autoencoders overflow in half.
        return encoded(data, self.pipeline.vae.to(torch.float32), size, scale, path, progress, some)

    def recipe(
        self, spans: Spans, latents: Latents, conditions: Conditions, schedule: Schedule, adapter: Adapter | None = None
    ) -> IntervalRecipe:
        """What the training loop trains: the denoiser, or the LoRA in it."""
        trained: nn.Module = self.denoiser if adapter is None else adapter.trained
        if adapter is None:
            self.denoiser.requires_grad_(True)
        pack = getattr(self.pipeline, "_pack_latents", None)
        return IntervalRecipe(
            self.entry.name,
            schedule,
            self.denoiser,
            trained,
            self.entry.noise,
            spans,
            latents,
            conditions,
            x_name=self.interview.x_name,
            time_unit=form_of(self.entry, self.denoiser).time_unit,
            **({} if pack is None else {"pack": partial(_packed, pack)}),
        )


@dataclass(frozen=True)
class Done:
    """A denoiser that was finetuned: its folder in the zoo, its record, and its LoRA where its pipeline takes one."""

    folder: Path
    record: finetuned.Record
    spans: Spans
    lora: Path | None


def finetune(
    student: Student,
    plan: Plan,
    plan_digest: str,
    allocation: Allocation,
    data: Dataset,
    options: Options,
    name: str,
    work: Path,
    progress: Callable[[str, float], None],
) -> Done:
    """Trains `student` on the timesteps that `allocation` gives it, and puts it into the zoo as `name`.

    An interrupted run with the same options goes on from its checkpoint in `work`. `progress` is told what runs, and
    which share of it is done. Raises BadFileError where a picture cannot be read, or the result not be written.
    """
    entry = student.entry
    spans = student.spans(allocation, plan.evaluations_per_step())
    conditions = Conditions(student.interview, data.captions)
    latents = student.latents(
        data,
        work,
        lambda done, of: progress(f"encoding {of:,} pictures once", done / of),
        examples_drawn(options.schedule, len(data), options.seed),
    )
    weights = components.digest_of(entry)
    adapter = None if options.lora is None else Adapter(student.denoiser, options.lora, options.seed)
    recipe = student.recipe(spans, latents, conditions, options.schedule, adapter)
    decides = (entry.name, weights, spans, options, data.digest, student.setting.size)
    checkpoint = work / f"{name}-{hashlib.sha256(repr(decides).encode()).hexdigest()[:16]}.pt"
    model, trained = train(
        recipe, checkpoint, seed=options.seed, fast=options.fast, progress=_told(progress, spans, entry.name)
    )
    record = finetuned.Record(
        base=entry.name,
        source=entry.source,
        revision=entry.revision,
        weights=weights,
        plan=plan_digest,
        allocation=allocation,
        timesteps=spans.each,
        batches=options.batches,
        batch_size=options.batch_size,
        rate=options.rate,
        constant=options.constant,
        seed=options.seed,
        lora=options.lora,
        data=data.words,
        data_digest=data.digest,
        first_loss=trained.losses[0],
        last_loss=trained.final_loss,
        seconds=trained.seconds,
        versions=fingerprint.versions(),
    )
    return _kept(student, model, adapter, trained, record, name)


def _kept(
    student: Student, model: nn.Module, adapter: Adapter | None, trained: Trained, record: finetuned.Record, name: str
) -> Done:
    """Writes the averaged weights, in the dtype that the plan runs them in, with their entry and record."""
    entry, lora = student.entry, False
    spans = Spans(record.timesteps, student.match.guest.noise.prediction == "flow")
    title = f"{entry.title}, finetuned for timesteps {spans.words}"
    points = curve.points(trained.losses, record.batches)
    with finetuned.appearing(name) as folder:
        if adapter is not None:
            adapter.take(model)
            lora = adapter.save(student.pipeline, entry.component, folder)
            adapter.merge()
        whole: Any = model if adapter is None else student.denoiser
        whole.to(getattr(torch, student.setting.dtype)).save_pretrained(folder / entry.component)
        made = standalone.zoo_file(replace(entry, subfolder=entry.component), name, title)
        documents.write(folder / "zoo.yaml", made, zoo_file.SCHEMA, overwrite=True)
        documents.write(folder / finetuned.RECORD, record, finetuned.SCHEMA, overwrite=True)
        (folder / "loss.csv").write_bytes(curve.csv(points))
        (folder / "loss.png").write_bytes(curve.png(points, f"{name}: timesteps {spans.words}"))
    final = finetuned.folder() / name
    return Done(final, record, spans, final / "pytorch_lora_weights.safetensors" if lora else None)


def _packed(pack: Callable[..., torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """Latents (B, C, h, w) as FLUX takes them: 2 x 2 of them as one token."""
    return pack(x, *x.shape)


def _told(progress: Callable[[str, float], None], spans: Spans, name: str) -> Progress:
    return lambda done, of, loss: progress(
        f"{name}, timesteps {spans.words}: batch {done} of {of}, loss {loss:.4f}", done / of
    )
