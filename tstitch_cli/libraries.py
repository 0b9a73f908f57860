"""Keeps diffusers and transformers from talking into a command's own output."""

from __future__ import annotations

import warnings

import diffusers
import transformers


def hush() -> None:
    """From now on they tell of errors alone, which are raised as well, and show no progress of their own."""
    warnings.filterwarnings("ignore", module=r"(diffusers|transformers|huggingface_hub)\b")
    diffusers.utils.logging.set_verbosity_error()
    transformers.utils.logging.set_verbosity_error()
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()
