"""Classes of pipeline components by the bare names that configs and zoo entries have; no others are ever made."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from tstitch_cli.errors import UsageError
from tstitch_cli.zoo import allowed, folders
from tstitch_cli.zoo.allowed import OWN_DENOISERS


def model_class(name: str) -> Any:
    """The class called `name`: a denoiser that can be stitched, or a part that pipelines may have beside it.

    Raises:
        UsageError: it is none of those, or the library that is installed has none of the name.
    """
    module = "diffusers" if name in folders.DENOISERS else allowed.library_of(name)
    found = None if module is None else getattr(import_module(OWN_DENOISERS.get(name, module)), name, None)
    if isinstance(found, type):
        return found
    raise UsageError(
        f"{name[:60]!r} is no class that tstitch runs",
        hint="components are denoisers that can be stitched, and the usual autoencoders, text encoders and schedulers "
        "of diffusers and transformers",
    )
