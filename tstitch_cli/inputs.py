"""Files that a drawing starts from beside its prompts (a picture, a mask, a control image): read, checked, fitted."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

from tstitch_cli import documents
from tstitch_cli.errors import BadFileError, UsageError
from tstitch_cli.schema import GivenFile, Setting

FORMATS = ("PNG", "JPEG", "WEBP", "BMP")
MAX_BYTES = 1 << 26
MAX_PIXELS = 1 << 26
_HINT = "give a PNG, JPEG, WebP or BMP picture"


@dataclass(frozen=True)
class Given:
    """The pictures that every drawing of a call starts from, at the setting's size; None where there is none."""

    image: Image.Image | None = None
    """What image-to-image and inpainting start from, in RGB."""
    mask: Image.Image | None = None
    """White where inpainting draws, in grey."""
    control: Image.Image | None = None
    """What a ControlNet sees, in RGB."""
    files: tuple[GivenFile, ...] = ()

    def arguments(self, count: int) -> dict[str, Any]:
        """The arguments by which diffusers' pipelines take the pictures, for a batch of `count`."""
        named = {
            "image": self.image,
            "mask_image": self.mask,
            # A ControlNet pipeline that starts from noise calls its one picture `image`.
            "image" if self.image is None else "control_image": self.control,
        }
        return {name: [picture] * count for name, picture in named.items() if picture is not None}


NOTHING = Given()


def blank(setting: Setting) -> Given:
    """What a profile is measured with: a grey picture, its left half to be drawn; a control image without an edge."""
    size = (setting.size, setting.size)
    mask = Image.new("L", size, 0)
    mask.paste(255, (0, 0, setting.size // 2, setting.size))
    return Given(
        image=Image.new("RGB", size, (128, 128, 128)) if setting.strength is not None else None,
        mask=mask if setting.inpaint else None,
        control=Image.new("RGB", size, (0, 0, 0)) if setting.control is not None else None,
    )


def read(setting: Setting, image: Path | None, mask: Path | None, control: str | None) -> Given:
    """Reads what `setting` wants; `control` is NAME=FILE, as the command line takes it.

    Pictures are turned as their camera says, laid on white where they are transparent, and scaled to the setting's
    square; of those that are no squares the middle is taken.

    Raises:
        UsageError: a picture is missing or was not asked for, the ControlNet is another, or the mask has another size.
        BadFileError: a file is no picture, or is too large.
    """
    edges = _control_file(setting, control)
    started, controlled = setting.strength is not None, setting.control is not None
    _wanted("--image", "FILE", image, started, "starts from a picture", "--strength 0.6")
    _wanted("--mask", "FILE", mask, setting.inpaint, "fills in what a mask covers", "--inpaint")
    _wanted("--control", f"{setting.control}=FILE", edges, controlled, "follows a control image", "--control NAME")
    opened = {kind: _open(path) for kind, path in (("image", image), ("mask", mask), ("control", edges)) if path}
    if image and mask and opened["image"].size != opened["mask"].size:
        (w, h), (mask_w, mask_h) = opened["image"].size, opened["mask"].size
        raise UsageError(
            f"{mask} is {mask_w} x {mask_h} px, {image} is {w} x {h}", hint="a mask has its picture's size"
        )
    fitted = {
        kind: ImageOps.fit(
            picture.convert("L") if kind == "mask" else picture, (setting.size,) * 2, Image.Resampling.LANCZOS
        )
        for kind, picture in opened.items()
    }
    files = tuple(
        GivenFile(kind, str(path), documents.digest(path))
        for kind, path in (("image", image), ("mask", mask), ("control", edges))
        if path
    )
    return Given(**fitted, files=files)


def again(setting: Setting, files: Sequence[GivenFile], name: str) -> Given:
    """What the picture `name` was drawn from, found where it was then and unchanged.

    Raises:
        BadFileError: a file is gone, is another one now, or is no picture.
    """
    paths: dict[str, Path] = {}
    for file in files:
        if file.kind == "lora":
            continue
        require_same(file, name)
        paths[file.kind] = Path(file.path)
    control = f"{setting.control}={paths['control']}" if "control" in paths else None
    return read(setting, paths.get("image"), paths.get("mask"), control)


def require_same(file: GivenFile, name: str) -> None:
    """Raises BadFileError where `file`, which the picture `name` was made from, is gone or is another one now."""
    if not os.path.isfile(file.path):
        raise BadFileError(
            f"{name} was drawn from {file.path}, which is not here",
            hint="run this in the folder it was drawn in, or put the file back",
        )
    if (now := documents.digest(Path(file.path))) != file.digest:
        raise BadFileError(
            f"{name} was drawn from {file.path} when its digest was {file.digest}; now it is {now}",
            hint="put the file back as it was, or draw anew with a plan",
        )


def _wanted(option: str, form: str, given: Path | None, wanted: bool, what: str, profile: str) -> None:
    if wanted and given is None:
        raise UsageError(f"the plan {what}, and none is given", hint=f"give {option} {form}")
    if given is not None and not wanted:
        raise UsageError(
            f"{option} is nothing that this plan was made for",
            hint=f"profile and plan with {profile}: it changes the time of a call",
        )


def _control_file(setting: Setting, given: str | None) -> Path | None:
    if given is None:
        return None
    name, equals, file = given.rpartition("=")
    if not equals or not name or not file:
        raise UsageError(f"--control {given}: which file?", hint="give it as NAME=FILE, such as canny=edges.png")
    if setting.control is not None and name != setting.control:
        raise UsageError(
            f"the plan is for the ControlNet {setting.control}, not {name}",
            hint=f"give --control {setting.control}=FILE",
        )
    return Path(file)


def _open(path: Path) -> Image.Image:
    """The picture as RGB, upright and opaque, at its own size."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise BadFileError(f"{path}: is larger than {MAX_BYTES >> 20} MiB", hint="give a smaller picture")
        with Image.open(path, formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise BadFileError(
                    f"{path}: {image.width} x {image.height} px are more than {MAX_PIXELS >> 20} million",
                    hint="give a smaller picture",
                )
            upright = ImageOps.exif_transpose(image).convert("RGBA")
    except FileNotFoundError:
        raise BadFileError(f"{path}: there is no such file", hint=_HINT) from None
    except (BadFileError, MemoryError):
        raise
    except Exception as error:  # a malformed file makes Pillow's readers fail in every way there is
        raise BadFileError(f"{path}: is no readable picture: {str(error)[:200]}", hint=_HINT) from error
    paper = Image.new("RGBA", upright.size, "white")
    paper.alpha_composite(upright)
    return paper.convert("RGB")
