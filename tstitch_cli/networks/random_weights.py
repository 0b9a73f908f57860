"""Builds denoisers and pipelines at their true size from the zoo's own facts, with random weights: for timing alone.

What a call costs depends on shapes and dtypes, not on values, as long as these are neither denormal nor infinite.
So modules are made without memory, then each parameter is filled once, in its final dtype, from one block of noise.
"""

from __future__ import annotations

import inspect
import re
from typing import Any

import diffusers
import torch
import transformers
from accelerate import init_empty_weights
from torch import nn

from tstitch_cli import components
from tstitch_cli.errors import BadFileError, UsageError
from tstitch_cli.networks.models import model_class
from tstitch_cli.schema import RANDOM_WEIGHTS
from tstitch_cli.zoo.controls import Control
from tstitch_cli.zoo.encoders import encoder_of
from tstitch_cli.zoo.entry import Component, Entry

_BLOCK = 2**20 + 7
"""Values of noise; odd, so that the rows of a large matrix are not repeated."""
_TOKENIZER = re.compile(r"\w+(Tokenizer(Fast)?|VLProcessor)")
_TEXT_PARTS = ("text_encoder", "tokenizer", "scheduler")
"""What the names of parts begin with that a pipeline needs in order to encode prompts, and to be made at all."""


def denoiser(entry: Entry, dtype: torch.dtype) -> nn.Module:
    """The denoiser of `entry` with random weights, in eval mode.

    Raises UsageError where the zoo does not know its architecture, BadFileError where that cannot be built.
    """
    if entry.architecture is None:
        raise UsageError(
            f"{entry.name}: the zoo does not know its architecture, so it cannot be built without its weights",
            hint="leave --random-weights out, or give its architecture in your zoo.yaml",
        )
    built = _build(entry.architecture, f"{entry.name}: architecture")
    if not isinstance(built, nn.Module):
        raise BadFileError(f"{entry.name}: {entry.architecture.model} is no denoiser")
    return fill(built, dtype)


def pipeline(entry: Entry, loaded: nn.Module, dtype: torch.dtype) -> Any:
    """The pipeline of `entry` around a built denoiser: text encoders and autoencoder with random weights as well.

    What a pipeline can do without (a safety checker) is left out, and tokenizers are stand-ins.
    Raises BadFileError where the zoo does not know all parts of it, or a part cannot be built.
    """
    return _around(entry, {entry.component: loaded}, dtype)


def text_pipeline(entry: Entry, dtype: torch.dtype) -> Any:
    """The pipeline of `entry` with its text encoders, random as well, and nothing else that has weights.

    Raises BadFileError where the zoo does not know all parts of it, or a part cannot be built.
    """
    left_out = (name for name in entry.components if not name.startswith(_TEXT_PARTS))
    return _around(entry, dict.fromkeys([*left_out, entry.component]), dtype)


def _around(entry: Entry, given: dict[str, Any], dtype: torch.dtype) -> Any:
    """The pipeline of `entry` with the parts that are given, the others built."""
    made = components.pipeline_class(entry.pipeline)
    parts = dict(given)
    for name, part in entry.components.items():
        if name in given:
            continue
        if _TOKENIZER.fullmatch(part.model):
            parts[name] = StandInTokenizer(part.config.get("model_max_length", 77))
        else:
            built = _build(part, f"{entry.family}: {name}")
            parts[name] = fill(built, dtype) if isinstance(built, nn.Module) else built
    accepted = inspect.signature(made.__init__).parameters
    parts |= {name: None for name in made._optional_components if name in accepted and name not in parts}
    if "requires_safety_checker" in accepted:
        parts["requires_safety_checker"] = False
    needed = [name for name, parameter in accepted.items() if parameter.default is parameter.empty and name != "self"]
    if missing := [name for name in needed if name not in parts]:
        raise BadFileError(
            f"{entry.name}: the zoo does not know the {', '.join(missing)} of its pipeline",
            hint="leave --random-weights out, or give them under `components` of the family in your zoo.yaml",
        )
    return made(**parts)


def controlnet(control: Control, denoiser: Any, dtype: torch.dtype) -> nn.Module:
    """A ControlNet for a built U-Net with random weights: ControlNets have the shapes of their U-Net's encoder.

    Raises UsageError where `control` is one of another U-Net than the one that was built.
    """
    if control.encoder not in (None, encoder_of(denoiser.config)):
        raise UsageError(
            f"{control.name} is the ControlNet of a larger denoiser than these, whose size it has",
            hint="give the denoiser that it was trained on as well, or leave --random-weights out",
        )
    with init_empty_weights(include_buffers=False):
        made = diffusers.ControlNetModel.from_unet(denoiser, load_weights_from_unet=False)
    return fill(made, dtype)


def digest_of(entry: Entry | Control) -> str:
    """What the fingerprint knows the weights of a denoiser or ControlNet by: that they are random."""
    return RANDOM_WEIGHTS


def fill(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """`model`, made without memory, on the CPU in `dtype` with weights that keep activations near 1; in eval mode.

    Matrices and kernels have entries of either sign around 1/sqrt(inputs), norms scale by one and biases are zero.
    What diffusers and transformers keep in float32 when they load, is.
    """
    generator = torch.Generator().manual_seed(0)
    magnitude = torch.rand(_BLOCK, generator=generator) + 0.5  # no value near zero: none is denormal in float16
    noise = magnitude * torch.randint(0, 2, (_BLOCK,), generator=generator).mul_(2).sub_(1)
    exact = _kept_exact(model, dtype)
    filled: dict[nn.Parameter, nn.Parameter] = {}  # a weight that two modules share stays one
    for path, module in model.named_modules():
        for name, empty in list(module.named_parameters(recurse=False)):
            if empty not in filled:
                own = torch.float32 if exact & {*path.split("."), name} else dtype
                filled[empty] = nn.Parameter(_values(name, empty.shape, own, noise), requires_grad=False)
            setattr(module, name, filled[empty])
    return model.eval().requires_grad_(False)


def _build(part: Component, place: str) -> Any:
    """An instance of the component's class whose parameters have shapes and no memory."""
    try:
        found = model_class(part.model)
    except UsageError as error:
        raise BadFileError(f"{place}: {error.message}", hint=error.hint) from error
    try:
        with init_empty_weights(include_buffers=False):
            if not issubclass(found, transformers.PreTrainedModel):
                return found(**part.config)
            model = found(found.config_class(**part.config))
    except (TypeError, ValueError, KeyError, IndexError, AttributeError, RuntimeError, ImportError) as error:
        raise BadFileError(f"{place}: {part.model} cannot be built from this config: {error}") from error
    model.tie_weights()  # not where parameters are made empty, which would part them
    return model


def _kept_exact(model: nn.Module, dtype: torch.dtype) -> set[str]:
    """Names of modules and parameters that stay in float32 in a half-precision model, as their library says."""
    if dtype == torch.float32 or (isinstance(model, transformers.PreTrainedModel) and dtype != torch.float16):
        return set()
    return set(getattr(model, "_keep_in_fp32_modules", None) or ())


def _values(name: str, shape: torch.Size, dtype: torch.dtype, noise: torch.Tensor) -> torch.Tensor:
    if len(shape) < 2:
        return torch.zeros(shape, dtype=dtype) if name == "bias" else torch.ones(shape, dtype=dtype)
    values = torch.empty(shape, dtype=dtype)
    flat, inputs = values.view(-1), values[0].numel()
    scaled = (noise[: len(flat)] * inputs**-0.5).to(dtype)
    for start in range(0, len(flat), _BLOCK):
        flat[start : start + _BLOCK] = scaled[: len(flat) - start]
    return values


class StandInTokenizer:
    """Takes a tokenizer's place where only the number of tokens counts: a word or a mark is one token.

    Prompts are padded and cut to the true length, as the pipelines ask for it; ids mean nothing.
    """

    added_tokens_encoder: dict[str, int] = {}  # noqa: RUF012, a tokenizer's attribute that pipelines read

    def __init__(self, model_max_length: int) -> None:
        self.model_max_length = model_max_length
        self.padding_side = "right"

    def __call__(
        self,
        text: str | list[str],
        padding: bool | str = False,
        max_length: int | None = None,
        truncation: bool = False,
        **_: Any,
    ) -> transformers.BatchEncoding:
        """Ids and attention mask, each (prompts, tokens), int64."""
        prompts = [text] if isinstance(text, str) else text
        most = self.model_max_length if max_length is None else max_length
        lengths = [len(self.encode(prompt)) for prompt in prompts]
        if truncation:
            lengths = [min(length, most) for length in lengths]
        width = most if padding == "max_length" else max(lengths)
        mask = (torch.arange(width) < torch.tensor(lengths)[:, None]).long()
        return transformers.BatchEncoding({"input_ids": mask, "attention_mask": mask})

    def apply_chat_template(self, messages: list[dict[str, str]], **_: Any) -> str:
        """What was said, with no words around it."""
        return "\n".join(message["content"] for message in messages)

    def encode(self, text: str) -> list[int]:
        """One id a token, and one for the end."""
        return [1] * (len(self.tokenize(text)) + 1)

    def tokenize(self, text: str) -> list[str]:
        """Words and marks."""
        return re.findall(r"\w+|[^\w\s]", text)

    def batch_decode(self, ids: torch.Tensor, **_: Any) -> list[str]:
        """As many empty prompts as `ids` has rows."""
        return [""] * len(ids)
