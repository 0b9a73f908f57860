"""Text embeddings of its own for every denoiser: each prompt goes through each one's text encoder.

The pipeline encodes the prompts as it always does; right after, the other denoisers' own pipelines, made of nothing but
their text encoders, do the same with the same arguments, and each embedding waits at its denoiser's bridge.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from tstitch_cli.bridges.bridge import Bridge
from tstitch_cli.zoo.entry import Entry


def give_each_its_own(
    pipeline: Any,
    entries: Sequence[Entry],
    host: Entry,
    bridges: Mapping[str, Bridge],
    dtype: torch.dtype,
    device: torch.device,
    text_pipeline: Callable[[Entry, torch.dtype], Any],
) -> None:
    """From now on, `pipeline`, made for `host`, encodes prompts with every denoiser's text encoder.

    `text_pipeline` makes the pipeline of an entry with its text encoders and nothing else that has weights.
    Raises BadFileError where a text encoder is missing or broken.
    """
    own = [(bridges[e.name], text_pipeline(e, dtype).to(device)) for e in entries if e is not host]
    plain = pipeline.encode_prompt

    @functools.wraps(plain)
    def encode_prompt(*args: Any, **kwargs: Any) -> Any:
        for bridge, other in own:
            bridge.embeddings = _arguments(pipeline, other.encode_prompt(*args, **kwargs))
        return plain(*args, **kwargs)

    pipeline.encode_prompt = encode_prompt


def _arguments(pipeline: Any, encoded: Sequence[torch.Tensor | None]) -> dict[str, Any]:
    """A denoiser's arguments from what `encode_prompt` returns: embeddings and negative ones, then pooled ones."""
    tokens, pooled = _guided(*encoded[:2]), _guided(*encoded[2:4]) if len(encoded) > 2 else None
    given: dict[str, Any] = {"encoder_hidden_states": tokens}
    if pooled is not None and type(pipeline).__name__.startswith("StableDiffusion3"):
        given["pooled_projections"] = pooled
    elif pooled is not None:
        given["added_cond_kwargs"] = {"text_embeds": pooled}
    return given


def _guided(positive: torch.Tensor | None, negative: torch.Tensor | None) -> torch.Tensor | None:
    """What guidance asks for in one batch: the negative half, then the positive one."""
    if positive is None or negative is None:
        return positive
    return torch.cat([negative, positive])
