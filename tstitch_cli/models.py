"""Classes of pipeline components by the bare names that configs and zoo entries have; no others are ever made."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from tstitch_cli.errors import UsageError

OWN_DENOISERS = {
    "LabelledUNet": "tstitch_cli.labelled_unet",
    "OriginalDiT": "tstitch_cli.original_dit",
    "UViTModel": "tstitch_cli.u_vit",
}
"""Architectures that diffusers has not: class -> module."""


def model_class(name: str) -> Any:
    """The class called `name`: a model of tstitch, a model or scheduler of diffusers, or a model of transformers.

    Raises:
        UsageError: there is none.
    """
    if name in OWN_DENOISERS:
        return getattr(import_module(OWN_DENOISERS[name]), name)
    import diffusers
    import transformers

    found = getattr(diffusers, name, None) or getattr(transformers, name, None)
    kinds = (diffusers.ModelMixin, diffusers.SchedulerMixin, transformers.PreTrainedModel)
    if isinstance(found, type) and issubclass(found, kinds):
        return found
    raise UsageError(
        f"{name[:60]!r} is no class that tstitch runs",
        hint="components are models and schedulers of diffusers, models of transformers, and tstitch's own denoisers",
    )
