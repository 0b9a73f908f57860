"""Finds prompts that are longer than a pipeline's text encoder reads, for diffusers cuts them off without a word."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any

_TOKENIZERS = ("tokenizer", "tokenizer_2", "tokenizer_3")
_SHOWN = 60


def remarks(pipeline: Any, prompts: Iterable[str]) -> tuple[str, ...]:
    """A sentence for each of `prompts` whose end is not read, with what is left out; equal ones once.

    Of several text encoders it is the one that reads most. T5 and its like read `max_sequence_length` tokens, an
    argument of their pipelines that tstitch leaves as it is; CLIP reads as many as its tokenizer says.
    """
    found = [tokenizer for name in _TOKENIZERS if (tokenizer := getattr(pipeline, name, None)) is not None]
    if not found:
        return ()
    tokenizer = max(found, key=lambda each: each.model_max_length)
    given = inspect.signature(pipeline.__call__).parameters.get("max_sequence_length")
    limit = tokenizer.model_max_length if given is None else given.default
    return tuple(told for prompt in dict.fromkeys(prompts) if (told := _remark(tokenizer, prompt, limit)))


def _remark(tokenizer: Any, prompt: str, limit: int) -> str | None:
    tokens = tokenizer(prompt).input_ids
    if len(tokens) <= limit:
        return None
    # The last token that is read marks the end.
    left_out = tokenizer.decode(tokens[limit - 1 :], skip_special_tokens=True)
    return (
        f"the prompt '{_short(prompt)}' has {len(tokens)} tokens and the text encoder reads {limit}: "
        f"'{_short(left_out)}' is left out"
    )


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."
