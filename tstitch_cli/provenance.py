"""How a picture was made: everything that drawing it again takes, as PNG text and back."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from tstitch_cli.errors import BadFileError, UsageError
from tstitch_cli.formats import strict_json
from tstitch_cli.formats.json_nodes import tree
from tstitch_cli.formats.typed_values import Faults, dataclass_of
from tstitch_cli.schema import GivenFile, PlannedDenoiser, Setting

SCHEMA = "tstitch/picture/1"
CHUNK = "tstitch"
"""Keyword of the PNG text chunk that holds the canonical JSON."""
MAX_STEPS = 100_000
MAX_PROMPT = 20_000
"""Characters of a prompt; the JSON of two such, all of them escaped, fits into the text that PNG readers take."""
MAX_PNG_BYTES = 1 << 28
_HINT = "`tstitch show` reads the PNGs that `tstitch sample` wrote, as it wrote them"
# How the A1111 form, which many programs read, spells the samplers it knows.
_SAMPLERS = {
    "ddim": "DDIM",
    "ddpm": "DDPM",
    "pndm": "PNDM",
    "dpm++": "DPM++ 2M",
    "dpm++-karras": "DPM++ 2M Karras",
    "euler": "Euler",
    "euler-karras": "Euler Karras",
    "euler-a": "Euler a",
    "heun": "Heun",
    "unipc": "UniPC",
    "lcm": "LCM",
}


@dataclass(frozen=True)
class Provenance:
    """How one picture was made. No time or date is in it, so that the same run gives the same bytes."""

    prompt: str
    negative_prompt: str | None
    seed: int
    index: int
    """The noise comes from (seed, index) alone."""
    setting: Setting
    family: str
    denoisers: tuple[PlannedDenoiser, ...]
    allocation: tuple[tuple[str, int], ...]
    """(denoiser, steps) in turn, noisiest first."""
    evaluations: tuple[tuple[int, int], ...]
    """(evaluations of a step, steps) in turn."""
    batch_size: int
    """Of the batch the picture was drawn in, which may be smaller than the setting's."""
    position: int
    """In that batch."""
    weights: dict[str, str]
    """Denoiser -> digest of its weights or its pinned revision."""
    versions: dict[str, str]
    """Package -> version."""
    files: tuple[GivenFile, ...] = ()
    """Pictures that were drawn from and LoRAs, by name and digest."""


def refuse_untellable(prompts: Iterable[str]) -> None:
    """Raises UsageError for a prompt that a picture could not tell: too long for a PNG's text, or no Unicode text."""
    for prompt in prompts:
        if len(prompt) > MAX_PROMPT:
            raise UsageError(
                f"the prompt {prompt[:40]!r}... has {len(prompt):,} characters",
                hint=f"give {MAX_PROMPT:,} at most; text encoders read the first few hundred",
            )
        if any("\ud800" <= character <= "\udfff" for character in prompt):
            raise UsageError(f"the prompt {prompt[:40]!r} is no Unicode text", hint="is the shell's encoding UTF-8?")


def to_json(made: Provenance) -> str:
    """Canonical JSON, pure ASCII: keys sorted, no blanks, the same value always the same text."""
    content = {"schema": SCHEMA, **asdict(made)}
    return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)


def from_json(text: str, name: str = "provenance") -> Provenance:
    """The inverse of `to_json`, for text that anybody may have written; `name` is what messages call it.

    Raises:
        BadFileError: the text is not exactly a provenance, or its parts contradict each other.
    """
    content = strict_json.parse(text, name)
    schema = content.pop("schema", None)
    if schema != SCHEMA:
        raise BadFileError(f"{name}: its schema is {str(schema)[:40]!r}, {SCHEMA} was expected", hint=_HINT)
    faults = Faults(name, _HINT)
    made: Provenance = dataclass_of(tree(content, name), Provenance, (), faults)
    faults.raise_if_any()
    for what in _contradictions(made):
        raise BadFileError(f"{name}: {what}", hint=_HINT)
    return made


def parameters_text(made: Provenance) -> str:
    """The A1111 form: the prompt, the negative prompt where there is one, and a line of `Key: value` pairs."""
    setting = made.setting
    pairs = {
        "Steps": str(setting.steps),
        "Sampler": _SAMPLERS.get(setting.scheduler, setting.scheduler),
        "CFG scale": f"{setting.guidance:g}",
        "Seed": str(made.seed),
        "Size": f"{setting.size}x{setting.size}",
        "Model": ">".join(dict.fromkeys(name for name, _ in made.allocation)),
        **({"Denoising strength": f"{setting.strength:g}"} if setting.strength is not None else {}),
        "Index": str(made.index),
        "Stitching": " ".join(f"{name} {steps}" for name, steps in made.allocation),
        "Setting": setting.words,
        **({"Files": ", ".join(file.words for file in made.files)} if made.files else {}),
        "Version": f"tstitch {made.versions['tstitch']}" if "tstitch" in made.versions else "tstitch",
    }
    lines = [made.prompt]
    if made.negative_prompt:
        lines.append(f"Negative prompt: {made.negative_prompt}")
    lines.append(", ".join(f"{key}: {_quoted(value)}" for key, value in pairs.items()))
    # What no text chunk can hold: NUL and halves of surrogate pairs, from a shell that is not in UTF-8.
    return "\n".join(lines).replace("\0", "\ufffd").encode("utf-8", "replace").decode("utf-8")


def read(path: Path) -> Provenance:
    """The provenance in a PNG that anybody may have written; its pixels are not decoded.

    Raises:
        BadFileError: there is no such file, it is no PNG, or it holds no provenance or a broken one.
    """
    from PIL import Image

    if not os.path.isfile(path):
        raise BadFileError(f"{path}: there is no such file", hint="give a PNG that `tstitch sample` wrote")
    try:
        if path.stat().st_size > MAX_PNG_BYTES:
            raise BadFileError(f"{path}: is larger than {MAX_PNG_BYTES >> 20} MiB", hint=_HINT)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # nothing is decompressed
            with Image.open(path, formats=["PNG"]) as image:
                text = image.info.get(CHUNK)
    except (BadFileError, MemoryError):
        raise
    except Exception as error:  # a malformed file makes Pillow's readers fail in every way there is
        raise BadFileError(f"{path}: is no readable PNG: {str(error)[:200]}", hint=_HINT) from error
    if not isinstance(text, str):
        raise BadFileError(
            f"{path}: does not say how it was made",
            hint="it was not drawn by tstitch, or a program that saved it again left the text out",
        )
    return from_json(text, str(path))


def _quoted(value: str) -> str:
    return json.dumps(value, ensure_ascii=False) if any(c in ',:"\n' for c in value) else value


def _contradictions(made: Provenance) -> list[str]:
    """What cannot hold together, given that all types are right."""
    setting, known = made.setting, {denoiser.name for denoiser in made.denoisers}
    counts = [setting.steps, setting.size, setting.batch_size, made.batch_size]
    counts += [n for run in made.evaluations for n in run] + [steps for _, steps in made.allocation]
    found = []
    if not all(0 < n <= MAX_STEPS for n in counts):
        found.append(f"steps, sizes and counts must be between 1 and {MAX_STEPS}")
    if made.seed < 0 or made.index < 0:
        found.append("seed and index must not be below 0")
    if setting.strength is not None and not 0 < setting.strength <= 1:
        found.append("strength must be above 0 and 1 at most")
    if setting.frames is not None and not 0 < setting.frames <= MAX_STEPS:
        found.append(f"frames must be between 1 and {MAX_STEPS}")
    if not 0 <= made.position < made.batch_size:
        found.append(f"position {made.position} is not in a batch of {made.batch_size}")
    if len(known) < len(made.denoisers):
        found.append("a denoiser is listed twice")
    if not {name for name, _ in made.allocation} <= known:
        found.append("the allocation has a denoiser that is not listed")
    if not {setting.host, setting.schedule} <= {None, *known}:
        found.append("the host or the schedule is a denoiser that is not listed")
    if sum(steps for _, steps in made.allocation) != setting.taken:
        found.append(f"the allocation does not have {setting.taken} steps")
    if sum(steps for _, steps in made.evaluations) != setting.taken:
        found.append(f"the evaluations are not of {setting.taken} steps")
    return found
