"""Derives an entry from the configs of a diffusers folder or hub repository; of the latter only those are fetched."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from tstitch_cli.errors import BadFileError, UsageError
from tstitch_cli.fetching import hub
from tstitch_cli.formats import strict_json
from tstitch_cli.schedulers import SCHEDULERS, SHIFTING_SCHEDULERS, for_flow
from tstitch_cli.zoo import allowed
from tstitch_cli.zoo.allowed import OWN_DENOISERS
from tstitch_cli.zoo.entry import Conditioning, Defaults, Entry, LatentSpace, Noise, Prediction
from tstitch_cli.zoo.needed import INDEX
from tstitch_cli.zoo.weights import parameters_in

ComponentName = Literal["unet", "transformer"]
_UNKNOWN_LICENCE = "not stated"
_WITHOUT_INDEX = "a zoo entry can point at a denoiser alone: source, subfolder, and `parts` for the rest"


@dataclass(frozen=True)
class _Kind:
    """What is the same for all denoisers of one pipeline class."""

    component: ComponentName
    classes: tuple[str, ...]
    """Component classes of diffusers that the pipeline runs."""
    width: str | None
    """The component's config key of the cross-attention width; None for class-conditional denoisers."""
    defaults: Defaults
    """`size` holds where the component's config has no sample_size."""
    channels: str = "in_channels"
    """The component's config key of the channels of its latents."""


_UNET = ("UNet2DConditionModel",)
_PIXART = ("PixArtTransformer2DModel", "Transformer2DModel")
_DIT = ("DiTTransformer2DModel", "Transformer2DModel", "OriginalDiT", "UViTModel")
_SD3, _FLUX, _SANA = ("SD3Transformer2DModel",), ("FluxTransformer2DModel",), ("SanaTransformer2DModel",)
_COGVIDEOX, _WAN = ("CogVideoXTransformer3DModel",), ("WanTransformer3DModel",)
_FLUX2, _KANDINSKY = ("Flux2Transformer2DModel",), ("Kandinsky5Transformer3DModel",)
_PIXART_DEFAULTS = Defaults(20, "dpm++", 4.5, 1024, 1, "float16")
_KINDS = {
    "StableDiffusionPipeline": _Kind(
        "unet", _UNET, "cross_attention_dim", Defaults(50, "pndm", 7.5, 512, 1, "float16")
    ),
    "StableDiffusionXLPipeline": _Kind(
        "unet", _UNET, "cross_attention_dim", Defaults(50, "euler", 5.0, 1024, 1, "float16")
    ),
    "LatentConsistencyModelPipeline": _Kind(
        "unet", _UNET, "cross_attention_dim", Defaults(4, "lcm", 8.5, 512, 1, "float16")
    ),
    "DiTPipeline": _Kind("transformer", _DIT, None, Defaults(100, "ddim", 1.5, 256, 8, "float16")),
    "ClassConditionalPipeline": _Kind("transformer", _DIT, None, Defaults(20, "ddim", 1.5, 32, 8, "float32")),
    "PixArtAlphaPipeline": _Kind("transformer", _PIXART, "caption_channels", _PIXART_DEFAULTS),
    "PixArtSigmaPipeline": _Kind("transformer", _PIXART, "caption_channels", _PIXART_DEFAULTS),
    "StableDiffusion3Pipeline": _Kind(
        "transformer", _SD3, "joint_attention_dim", Defaults(28, "flow-euler", 7.0, 1024, 1, "float16")
    ),
    "FluxPipeline": _Kind(
        "transformer", _FLUX, "joint_attention_dim", Defaults(28, "flow-euler", 3.5, 1024, 1, "bfloat16")
    ),
    "Flux2KleinPipeline": _Kind(
        "transformer", _FLUX2, "joint_attention_dim", Defaults(50, "flow-euler", 4.0, 1024, 1, "bfloat16")
    ),
    "SanaPipeline": _Kind(
        "transformer", _SANA, "caption_channels", Defaults(20, "flow-dpm++", 4.5, 1024, 1, "bfloat16")
    ),
    "SanaSprintPipeline": _Kind("transformer", _SANA, "caption_channels", Defaults(2, "scm", 4.5, 1024, 1, "bfloat16")),
    "CogVideoXPipeline": _Kind(
        "transformer", _COGVIDEOX, "text_embed_dim", Defaults(50, "cogvideox-ddim", 6.0, 480, 1, "bfloat16")
    ),
    "Kandinsky5T2VPipeline": _Kind(
        "transformer", _KANDINSKY, "in_text_dim", Defaults(50, "flow-euler", 5.0, 512, 1, "bfloat16"), "in_visual_dim"
    ),
    "WanPipeline": _Kind("transformer", _WAN, "text_dim", Defaults(50, "flow-unipc", 5.0, 480, 1, "bfloat16")),
}
PIPELINES = tuple(_KINDS)
"""The pipeline classes whose denoisers can be stitched; no other class is ever made."""
DENOISERS = frozenset({*OWN_DENOISERS, *(name for kind in _KINDS.values() for name in kind.classes)})
"""The classes of their denoisers; no other class is ever made of a denoiser's config."""
_AUTOENCODERS = (
    "AutoencoderKL",
    "AutoencoderKLCogVideoX",
    "AutoencoderKLFlux2",
    "AutoencoderKLHunyuanVideo",
    "AutoencoderDC",
    "AutoencoderKLWan",
    "VQModel",
)
_SERVED_BY = {"DiTPipeline": "ClassConditionalPipeline"}
"""Pipelines that tstitch's own stands in for, so that all class-conditional denoisers can be stitched in one."""
_PREDICTIONS: dict[str, Prediction] = {
    "epsilon": "epsilon",
    "v_prediction": "v_prediction",
    "sample": "sample",
    "flow_prediction": "flow",
}
_BETAS = ("linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid")


@dataclass(frozen=True)
class _Config:
    """One JSON config, its values asked for by type."""

    values: dict[str, Any]
    name: str

    def text(self, key: str, default: str | None = None) -> str:
        return self._of(key, str, default, "text")

    def count(self, key: str, default: int | None = None) -> int:
        found = self._of(key, int, default, "a whole number")
        if isinstance(found, bool) or not 0 < found < 1 << 24:
            raise self.wrong(key, "a whole number above 0")
        return found

    def number(self, key: str, default: float | None = None) -> float:
        found = self._of(key, (int, float), default, "a number")
        if isinstance(found, bool) or not math.isfinite(found):
            raise self.wrong(key, "a finite number")
        return float(found)

    def length(self, key: str) -> int:
        return len(self._of(key, list, None, "a list"))

    def wrong(self, key: str, wanted: str) -> BadFileError:
        if self.values.get(key) is None:
            return BadFileError(f"{self.name}: {key} is missing, {wanted} was expected")
        return BadFileError(f"{self.name}: {key} is {str(self.values[key])[:60]!r}, {wanted} was expected")

    def _of(self, key: str, kind: Any, default: Any, wanted: str) -> Any:
        found = self.values.get(key)
        found = default if found is None else found
        if not isinstance(found, kind):
            raise self.wrong(key, wanted)
        return found


Fetch = Callable[[str], Path]
"""From a path inside a repository, such as `vae/config.json`, to the file; raises TstitchError."""


def from_folder(folder: Path) -> Entry:
    """The entry that a local diffusers folder describes; its name is the folder's.

    The folder holds a whole pipeline, or a denoiser alone (its `unet` or `transformer`) and lies in the folder of the
    pipeline that has the other parts, as `tstitch train` leaves what it trains.

    Raises:
        BadFileError: model_index.json or a config it needs is missing or malformed.
        UsageError: the pipeline or a component of it is none that can be stitched.
    """
    folder = folder.resolve()
    alone = not os.path.isfile(folder / INDEX) and os.path.isfile(folder.parent / INDEX)
    parts = folder.parent if alone else folder

    def fetch(path: str) -> Path:
        place = folder if path.partition("/")[0] in get_args(ComponentName) else parts
        if not os.path.isfile(place / path):
            hint = f"a diffusers pipeline folder has {INDEX} and a folder for every component"
            if os.path.isfile(folder / "config.json"):
                hint = f"{folder} holds one component; {hint}; {_WITHOUT_INDEX}"
            raise BadFileError(f"{place}: has no {path}", hint=hint)
        return place / path

    entry = _derive(folder.name or "folder", f"folder:{folder}", None, fetch)
    entry = replace(entry, parts=f"folder:{parts}", parameters=parameters_in(folder / entry.subfolder))
    if alone and entry.component == "unet" and entry.conditioning.guidance_embedding:
        # The scheduler there is another model's; a U-Net that is told the guidance scale draws in few steps.
        few = _KINDS["LatentConsistencyModelPipeline"].defaults
        shorter = replace(entry.defaults, steps=few.steps, scheduler=few.scheduler, guidance=few.guidance)
        return replace(entry, defaults=shorter)
    return entry


def from_hub(repository: str, revision: str | None) -> Entry:
    """The entry that a hub repository describes, at the commit that `revision` or the main branch stands for now.

    Raises:
        UsageError: there is no such repository or revision, it is private or gated, or it cannot be stitched.
        BadFileError: a config it needs is missing or malformed, its weights are no safetensors, or the hub cannot be
            reached.
    """
    commit = hub.commit_of(repository, revision, INDEX)

    def fetch(path: str) -> Path:
        return hub.file(repository, path, commit)

    entry = _derive(repository, f"hub:{repository}", commit, fetch)
    return replace(entry, parameters=hub.parameters(repository, commit, entry.subfolder))


def refuse_foreign_denoiser(config: Path) -> None:
    """Raises UsageError where a denoiser's config.json names code, or a class that cannot be stitched."""
    values = strict_json.read(config)
    allowed.refuse_code(values, str(config))
    if values.get("_class_name") not in DENOISERS:
        raise allowed.foreign(str(config), f"_class_name: {str(values.get('_class_name'))[:60]}")


def denoiser_classes(pipeline: str) -> tuple[str, ...]:
    """The diffusers classes that a denoiser of the named pipeline may be of; empty for a pipeline not known here."""
    return _KINDS[pipeline].classes if pipeline in _KINDS else ()


def scaling_of(autoencoder_config: Path) -> float:
    """The scaling factor in an autoencoder's config.json; raises BadFileError where there is none to read."""
    return _scaling(_read(autoencoder_config))


def _derive(name: str, source: str, revision: str | None, fetch: Fetch) -> Entry:
    index = _read(fetch(INDEX))
    pipeline, kind = _kind(index)
    component = _read(fetch(f"{kind.component}/config.json"))
    autoencoder = _read(fetch("vae/config.json"))
    scheduler = _read(fetch("scheduler/scheduler_config.json"))
    for config in (component, autoencoder, scheduler):
        allowed.refuse_code(config.values, config.name)
    space = _latent_space(autoencoder)
    packed = 4 if pipeline.startswith("Flux") else 1  # which sees 2 x 2 latent pixels as one
    if (taken := component.count(kind.channels)) != space.channels * packed:
        raise UsageError(
            f"{name}: the denoiser takes {taken} channels, the autoencoder makes {space.channels}",
            hint="inpainting and image-conditioned denoisers cannot be stitched",
        )
    noise = _noise(scheduler, component, space.channels)
    return Entry(
        name=name,
        title=f"{pipeline.removesuffix('Pipeline')} from {name}",
        source=source,
        revision=revision,
        component=kind.component,
        subfolder=kind.component,
        pipeline=_SERVED_BY.get(pipeline, pipeline),
        parts=source,
        latent_space=space,
        noise=noise,
        conditioning=_conditioning(kind, component, index),
        defaults=_defaults(kind, component, scheduler, space, flow=noise.prediction == "flow"),
        parameters=None,
        licence=_UNKNOWN_LICENCE,
    )


def _kind(index: _Config) -> tuple[str, _Kind]:
    """The pipeline's class and kind, once it is sure that nothing but diffusers' own code would run."""
    name = index.values.get("_class_name")
    if not isinstance(name, str) or name not in _KINDS:
        raise UsageError(
            f"{index.name}: the pipeline {str(name)[:60]!r} cannot be stitched",
            hint=f"these can: {', '.join(PIPELINES)}",
        )
    kind = _KINDS[name]
    if name == "ClassConditionalPipeline" and index.values.get("unet", [None])[:1] != [None]:
        kind = replace(kind, component="unet", classes=("LabelledUNet",))
    allowed.parts(index.values, index.name, kind.component)
    for part, classes in ((kind.component, kind.classes), ("vae", _AUTOENCODERS), ("scheduler", None)):
        found = index.values.get(part)
        if not isinstance(found, list) or len(found) != 2 or not all(isinstance(each, str) for each in found):
            raise index.wrong(part, "a library and a class")
        if found[0] != OWN_DENOISERS.get(found[1], "diffusers") or (classes is not None and found[1] not in classes):
            raise allowed.foreign(index.name, f"{part}: {found[0][:60]}.{found[1][:60]}")
    return name, kind


def _latent_space(autoencoder: _Config) -> LatentSpace:
    if autoencoder.text("_class_name") == "AutoencoderKLWan":
        return _video_space(autoencoder)
    compressing = autoencoder.text("_class_name") == "AutoencoderDC"
    blocks = autoencoder.length("encoder_block_out_channels" if compressing else "block_out_channels")
    if not 0 < blocks <= 8:
        raise BadFileError(f"{autoencoder.name}: {blocks} levels of blocks, 1 to 8 were expected")
    quantizing = autoencoder.text("_class_name") == "VQModel"
    channels = autoencoder.count("latent_channels", None if compressing else 3 if quantizing else 4)
    downscale, scale = 2 ** (blocks - 1), _scaling(autoencoder)
    return LatentSpace(
        name=f"f{downscale}-c{channels}-{scale:g}",
        channels=channels,
        downscale=downscale,
        autoencoder=f"{'DC' if compressing else 'VQ' if quantizing else 'KL'}-f{downscale}",
        scaling_factor=scale,
        shift_factor=autoencoder.number("shift_factor", 0.0),
    )


def _video_space(autoencoder: _Config) -> LatentSpace:
    """Wan's autoencoder scales each channel with a mean and deviation of its own, so there is no one factor."""
    channels, downscale = autoencoder.count("z_dim", 16), autoencoder.count("scale_factor_spatial", 8)
    return LatentSpace(f"video-f{downscale}-c{channels}", channels, downscale, f"KL-f{downscale} of Wan", 1.0)


def _scaling(autoencoder: _Config) -> float:
    # Configs older than the key mean Stable Diffusion's factor, as diffusers' own default does.
    old = autoencoder.text("_class_name") in ("AutoencoderKL", "VQModel")
    scale = autoencoder.number("scaling_factor", 0.18215 if old else 1.0)
    if scale <= 0:
        raise autoencoder.wrong("scaling_factor", "a number above 0")
    return scale


def _noise(scheduler: _Config, component: _Config, channels: int) -> Noise:
    """What the scheduler's config says of the training; what it leaves out is diffusers' own default."""
    steps = scheduler.count("num_train_timesteps", 1000)
    spoken = scheduler.text("prediction_type", "epsilon")
    # What is shown in TrigFlow's angles was trained by flow matching all the same.
    if scheduler.text("_class_name").startswith("FlowMatch") or spoken in ("flow_prediction", "trigflow"):
        return Noise("flow", train_steps=steps)
    schedule = scheduler.text("beta_schedule", "linear")
    if scheduler.values.get("trained_betas") is not None or schedule not in _BETAS:
        raise UsageError(
            f"{scheduler.name}: a noise schedule of its own cannot be stitched", hint=f"these can: {', '.join(_BETAS)}"
        )
    if spoken not in _PREDICTIONS:
        raise scheduler.wrong("prediction_type", " or ".join(_PREDICTIONS))
    return Noise(
        prediction=_PREDICTIONS[spoken],
        beta_schedule=schedule,
        beta_start=scheduler.number("beta_start", 1e-4),
        beta_end=scheduler.number("beta_end", 0.02),
        train_steps=steps,
        learned_variance=component.values.get("out_channels") == 2 * channels,
        zero_terminal_snr=scheduler.values.get("rescale_betas_zero_snr") is True,
        snr_shift=scheduler.number("snr_shift_scale", 3.0) if _shifts(scheduler) else None,
    )


def _shifts(scheduler: _Config) -> bool:
    return scheduler.text("_class_name") in {SCHEDULERS[name][0] for name in SHIFTING_SCHEDULERS}


def _conditioning(kind: _Kind, component: _Config, index: _Config) -> Conditioning:
    distilled = component.values.get("time_cond_proj_dim") is not None or component.values.get("guidance_embeds")
    if kind.width is not None:
        return Conditioning("text", component.count(kind.width), guidance_embedding=bool(distilled))
    key = "num_classes" if "num_classes" in component.values else "num_embeds_ada_norm"
    classes = component.count(key)
    if classes > 100_000:
        raise component.wrong(key, "at most 100000 classes")
    names = index.values.get("id2label") or {}
    if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
        raise index.wrong("id2label", "class names by number")
    return Conditioning("class", labels=tuple(names.get(str(i), str(i)) for i in range(classes)))


def _defaults(kind: _Kind, component: _Config, scheduler: _Config, space: LatentSpace, *, flow: bool) -> Defaults:
    usual, class_name = kind.defaults, scheduler.text("_class_name")
    fitting = {of: name for name, (of, _) in reversed(SCHEDULERS.items()) if for_flow(name) == flow}
    known = fitting.get(class_name, usual.scheduler)
    latent_size = component.values.get("sample_size")
    size = component.count("sample_size") * space.downscale if isinstance(latent_size, int) else usual.size
    return Defaults(usual.steps, known, usual.guidance, size, usual.batch_size, usual.dtype)


def _read(path: Path) -> _Config:
    return _Config(strict_json.read(path), str(path))
