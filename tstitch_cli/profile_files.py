"""Where profiles are kept and how one is found: the newest, by name, or one shipped for reference."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from difflib import get_close_matches
from pathlib import Path

from tstitch_cli.errors import BadFileError, UsageError
from tstitch_cli.savings import accelerations
from tstitch_cli.schema import PROFILE_SCHEMA, Setting
from tstitch_cli.zoo.registry import Zoo

FOLDER = Path("profiles")
HEAD_BYTES = 4096
LONGEST_PART = 40
"""Characters of one part of a file name; a name of a model may be longer."""
_SHORT = {"float32": "f32", "float16": "f16", "bfloat16": "bf16", "float64": "f64"}
_HEAD = re.compile(r"^(schema|origin|created):\s*[\"']?([^\"'#\n]*)", re.MULTILINE)


def newest(folder: Path = FOLDER) -> Path:
    """The profile measured or imported last of those in `folder`; reference profiles and other files do not count.

    Raises:
        BadFileError: there is none.
    """
    dated = [(created, path) for path in _files(folder) if (created := _created(path)) is not None]
    if not dated:
        raise BadFileError(
            f"there is no measured or imported profile in {folder}/",
            hint="measure one with `tstitch profile tiny-sd tiny-sd-small` (`tstitch zoo` has others), or name one "
            "of those that come with tstitch: "
            + (", ".join(f"--profile {name}" for name in shipped()[:2]) or "--profile FILE"),
        )
    return max(dated)[1]


def find(file_or_name: str) -> Path:
    """The profile at a path, or of this name in ./profiles, or of this name among those that come with tstitch.

    Raises:
        BadFileError, UsageError: there is no such file, or no such name; suggests the nearest.
    """
    for candidate in _candidates(file_or_name):
        try:
            if candidate.is_file():
                return candidate
        except (OSError, ValueError):
            # Too long for a file name, or has a null character in it: no such file either way.
            continue
    known = list(dict.fromkeys([*(path.stem for path in _files(FOLDER)), *shipped()]))
    near = get_close_matches(Path(file_or_name).stem, known, 3, 0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"there are: {', '.join(known) or 'none'}"
    path = Path(file_or_name)
    if path.suffix or path.name != file_or_name:
        raise BadFileError(f"{file_or_name[:200]}: there is no such file", hint=hint)
    raise UsageError(f"there is no profile called {file_or_name[:80]}", hint=hint)


def shipped() -> tuple[str, ...]:
    """Names of the profiles that come with tstitch."""
    return tuple(path.stem for path in _files(_shipped_folder()))


def file_name(family: str, denoisers: Iterable[str], setting: Setting) -> str:
    """A profile's name after device, family, denoisers and setting, such as `cpu-fashion-s-b-xl-ddim20-b8-f32.yaml`.

    Two settings that somebody may choose have two names, and so have two choices of denoisers.
    """
    dtype = _SHORT.get(setting.dtype, setting.dtype)
    steps = f"{setting.steps}steps" if setting.scheduler == "unknown" else f"{setting.scheduler}{setting.steps}"
    names = [name.removeprefix(f"{family}-") for name in denoisers]
    # Imported times have no device, family or dtype of their own; one word says so.
    parts = [*dict.fromkeys((setting.device, family)), *names, steps, f"b{setting.batch_size}", dtype]
    usual_size, usual_guidance = _usual(family)
    parts += [f"{setting.size}px"] if setting.size != usual_size else []
    parts += [f"g{setting.guidance:g}"] if setting.guidance != usual_guidance else []
    parts += [f"embeddings-{setting.embeddings}"] if setting.embeddings else []
    parts += [accelerations.short(each) for each in setting.accelerate] + ["offload"] * setting.offload
    parts += [f"s{setting.strength:g}"] if setting.strength is not None else []
    parts += ["inpaint"] * setting.inpaint + ([f"control-{Path(setting.control).name}"] if setting.control else [])
    parts += [f"{setting.frames}frames"] if setting.frames else []
    parts += ["compiled"] * setting.compiled
    return "-".join(part for part in map(_safe, parts) if part not in ("", "unknown")) + ".yaml"


def _safe(part: str) -> str:
    """`part` in the characters that every file system and shell takes as they are; what is long ends in a digest."""
    safe = re.sub(r"[^a-z0-9.]+", "-", part.lower()).strip("-.")
    if len(safe) <= LONGEST_PART:
        return safe
    digest = hashlib.sha256(part.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{safe[: LONGEST_PART - 7]}-{digest[:6]}"


def _usual(family: str) -> tuple[int, float]:
    """The size and guidance that go without saying: the commonest defaults in tstitch's own zoo, else none at all."""
    found = [entry.defaults for entry in Zoo.shipped().entries.values() if entry.latent_space.name == family]
    counted = Counter((defaults.size, defaults.guidance) for defaults in found)
    return counted.most_common(1)[0][0] if counted else (0, 1.0)


def _candidates(file_or_name: str) -> list[Path]:
    candidates = [Path(file_or_name)]
    if Path(file_or_name).name == file_or_name:
        for folder in (FOLDER, _shipped_folder()):
            candidates += [folder / file_or_name, folder / f"{file_or_name}.yaml"]
    return candidates


def _shipped_folder() -> Path:
    """Within the installed package, or in a checkout the folder beside it."""
    package = Path(__file__).parent
    installed = package / "reference"
    return installed if installed.is_dir() else package.parent / "profiles"


def _files(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.suffix == ".yaml")
    except OSError:
        return []


def _created(path: Path) -> datetime | None:
    """When a profile was made, from a glance at its first lines; None where it is no profile made here."""
    try:
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES).decode("utf-8-sig", errors="replace")
    except OSError:
        return None
    found = {match[1]: match[2].strip() for match in _HEAD.finditer(head)}
    if found.get("schema") != PROFILE_SCHEMA or found.get("origin") not in ("measured", "imported"):
        return None
    try:
        created = datetime.fromisoformat(found.get("created", ""))
    except ValueError:
        return None
    return created if created.tzinfo else created.replace(tzinfo=UTC)
