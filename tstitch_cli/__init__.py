"""tstitch: draw diffusion pictures within a time budget; the public names, each imported when it is first asked for.

    profile = read_profile(Path("profiles/mine.yaml"))            # or measure(load(entries, setting), ...)
    plan = make_plan(profile, budget=parse_budget("60%"))         # the lookup table and the chosen row
    for drawn in draw(family, work_of(plan, row), ...): ...       # the pictures

Importing the package imports neither torch nor diffusers; of the names below only `load`, `measure`, `draw` and
`stitch` do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__all__ = [
    "Plan",
    "Profile",
    "Row",
    "Setting",
    "TstitchError",
    "Zoo",
    "__version__",
    "draw",
    "load",
    "make_plan",
    "measure",
    "parse_budget",
    "read_plan",
    "read_profile",
    "stitch",
]

_MODULES = {
    "Plan": "schema",
    "Profile": "schema",
    "Row": "schema",
    "Setting": "schema",
    "TstitchError": "errors",
    "Zoo": "zoo.registry",
    "draw": "sample",
    "load": "denoisers",
    "make_plan": "plan",
    "measure": "profile",
    "parse_budget": "quantities",
    "read_plan": "documents",
    "read_profile": "documents",
    "stitch": "stitching",
}

if TYPE_CHECKING:
    from tstitch_cli.denoisers import load
    from tstitch_cli.documents import read_plan, read_profile
    from tstitch_cli.errors import TstitchError
    from tstitch_cli.plan import make_plan
    from tstitch_cli.profile import measure
    from tstitch_cli.quantities import parse_budget
    from tstitch_cli.sample import draw
    from tstitch_cli.schema import Plan, Profile, Row, Setting
    from tstitch_cli.stitching import stitch
    from tstitch_cli.zoo.registry import Zoo

    __version__: str
else:
    # Hidden from type checkers, to which it would say that every name exists.
    def __getattr__(name: str) -> object:
        if name == "__version__":
            from importlib.metadata import PackageNotFoundError, version

            try:
                return version("tstitch")
            except PackageNotFoundError:
                raise AttributeError("tstitch is not installed, so it has no __version__") from None
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        globals()[name] = value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
