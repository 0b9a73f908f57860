"""Text embeddings of its own for every denoiser: each prompt goes through each one's text encoder.

The pipeline encodes the prompts as it always does; right after, the other denoisers' own pipelines, made of nothing but
their text encoders, do the same with the same arguments, and each embedding waits at its denoiser's bridge.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from tstitch_cli.bridges.bridge import Bridge
from tstitch_cli.zoo.entry import Entry

_APART = ("Flux2KleinPipeline",)
"""Pipelines that encode prompts and what guides away from them one after the other, and call for each by itself."""


class Counterparts:
    """What a denoiser's own text encoder made of the prompts that the host's encoded last."""

    def __init__(self) -> None:
        self._pairs: deque[tuple[torch.Tensor, torch.Tensor]] = deque(maxlen=2)

    def note(self, host: torch.Tensor, own: torch.Tensor) -> None:
        """`own` (B, L, W) says in the denoiser's words what `host` (B, L, V) says."""
        self._pairs.append((host, own))

    def __call__(self, host: torch.Tensor) -> torch.Tensor:
        """The counterpart of an embedding that was noted, which the pipeline passes on as it is."""
        return next(own for noted, own in self._pairs if noted.data_ptr() == host.data_ptr())


def give_each_its_own(
    pipeline: Any,
    entries: Sequence[Entry],
    host: Entry,
    bridges: Mapping[str, Bridge],
    dtype: torch.dtype,
    place: Callable[[Any], object],
    text_pipeline: Callable[[Entry, torch.dtype], Any],
) -> None:
    """From now on, `pipeline`, made for `host`, encodes prompts with every denoiser's text encoder.

    `text_pipeline` makes the pipeline of an entry with its text encoders and nothing else that has weights, and `place`
    puts such a one where it is to run.
    Raises BadFileError where a text encoder is missing or broken.
    """
    own = [(bridges[e.name], text_pipeline(e, dtype)) for e in entries if e is not host]
    for _, other in own:
        place(other)
    apart = {id(bridge): Counterparts() for bridge, _ in own} if type(pipeline).__name__ in _APART else {}
    plain = pipeline.encode_prompt

    @functools.wraps(plain)
    def encode_prompt(*args: Any, **kwargs: Any) -> Any:
        encoded = plain(*args, **kwargs)
        for bridge, other in own:
            theirs = other.encode_prompt(*args, **kwargs)
            if counterparts := apart.get(id(bridge)):
                counterparts.note(encoded[0], theirs[0])
                bridge.embeddings = {"encoder_hidden_states": counterparts}
            else:
                bridge.embeddings = _arguments(pipeline, theirs)
        return encoded

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
