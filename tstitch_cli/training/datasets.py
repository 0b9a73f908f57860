"""Pictures with what each shows: Fashion-MNIST, a folder with captions or classes, or a webdataset of .tar files.

Pictures are read one after the other, so that a .tar is streamed and nothing of it is ever extracted to the disk.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from PIL import Image, ImageOps

from tstitch_cli.errors import BadFileError, UsageError
from tstitch_cli.inputs import FORMATS, MAX_BYTES, MAX_PIXELS
from tstitch_cli.training import fashion_mnist

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
METADATA = "metadata.jsonl"
KEYS = ("text", "caption", "label")
"""Under which a line of metadata, or a .json of a webdataset, says what its picture shows; the first that is there."""
MAX_TEXT = 1 << 20
"""Bytes beyond which a caption's file is none."""
MAX_METADATA = 1 << 28
_HINT = (
    "give Fashion-MNIST's folder; or pictures in one subfolder a class, with a .txt of the same name each, or with a "
    f'{METADATA} of lines such as {{"file_name": "1.png", "text": "a fox"}}; or a webdataset\'s .tar'
)


@dataclass(frozen=True)
class Dataset:
    """Pictures in a fixed order."""

    captions: tuple[str, ...]
    """What each shows: a sentence, or a class by name or number."""
    read: Callable[[], Iterator[Image.Image]]
    """All pictures in order, read one by one; raises BadFileError where one cannot be read."""
    digest: str
    """Changes with the files, as far as their names, sizes, times and captions tell."""
    words: str
    """What the records say of it."""

    def __len__(self) -> int:
        return len(self.captions)


def find(asked: Path | None, classes: tuple[str, ...]) -> Dataset:
    """The data at `asked`; where nothing was asked for and `classes` are Fashion-MNIST's, that in its usual places.

    Raises:
        UsageError: there is nothing of the kind.
        BadFileError: a caption or a listing cannot be read.
    """
    if asked is None:
        if classes != fashion_mnist.CLASSES:
            raise UsageError("which pictures shall it learn from?", hint=f"--data: {_HINT}")
        return _fashion(fashion_mnist.find())
    path = asked.expanduser()
    if path.is_dir() and (path / "train-images-idx3-ubyte.gz").is_file():
        return _fashion(path)
    if path.is_dir():
        shards = sorted(path.glob("*.tar"))
        return _tars(shards, path) if shards else _folder(path)
    if path.is_file() and path.suffix == ".tar":
        return _tars([path], path)
    raise UsageError(f"{path}: is no data to learn from" if path.exists() else f"there is no {path}", hint=_HINT)


def of_fashion_mnist(pictures: fashion_mnist.Pictures, words: str) -> Dataset:
    """Pictures of Fashion-MNIST with the names of their classes."""

    def read() -> Iterator[Image.Image]:
        return (Image.fromarray(each[0].numpy()) for each in pictures.pixels)

    captions = tuple(fashion_mnist.CLASSES[label] for label in pictures.labels.tolist())
    key = hashlib.sha256(pictures.pixels.numpy().tobytes() + pictures.labels.numpy().tobytes()).hexdigest()[:16]
    return Dataset(captions, read, key, words)


def _fashion(folder: Path) -> Dataset:
    pictures = fashion_mnist.load(folder, "train")
    return of_fashion_mnist(pictures, f"Fashion-MNIST, {len(pictures)} training pictures")


def _folder(folder: Path) -> Dataset:
    """A folder in one of the forms of Hugging Face's imagefolder, or with a .txt beside every picture."""
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in PICTURES and path.is_file())
    listed = folder / METADATA
    if listed.is_file():
        said = dict(_metadata(listed, folder))
    elif any(path.with_suffix(".txt").is_file() for path in found):
        said = {path: _caption(path.with_suffix(".txt")) for path in found}
    else:
        said = {path: path.parent.name for path in found if path.parent != folder}
    if not said:
        raise UsageError(f"{folder}: has no pictures of which something is said", hint=_HINT)
    paths = tuple(said)

    def read() -> Iterator[Image.Image]:
        for path in paths:
            try:
                with path.open("rb") as file:
                    picture = _upright(file, str(path))
            except OSError as error:
                raise BadFileError(f"{path}: cannot be read: {error.strerror or error}", hint=_HINT) from error
            yield picture

    return Dataset(tuple(said.values()), read, _digest(said.items()), f"{len(paths)} pictures of {folder.name}")


def _metadata(listed: Path, folder: Path) -> Iterator[tuple[Path, str]]:
    for number, line in enumerate(_text(listed, MAX_METADATA).split("\n"), 1):
        if not line.strip():
            continue
        said = _json(line, f"{listed}:{number}")
        name, caption = said.get("file_name"), _said(said)
        if not isinstance(name, str) or caption is None:
            raise BadFileError(f"{listed}:{number}: expected file_name and one of {', '.join(KEYS)}", hint=_HINT)
        path = folder / name
        if not _is_inside(path, folder):
            raise BadFileError(f"{listed}:{number}: there is no {name[:200]} in {folder}", hint=_HINT)
        yield path, caption


def _is_inside(path: Path, folder: Path) -> bool:
    """Whether `path` is a file in `folder`, and neither `..` nor a link leads out of it."""
    try:
        return path.resolve().is_relative_to(folder.resolve()) and path.is_file()
    except (OSError, ValueError):  # a name that no file can have
        return False


def _tars(shards: list[Path], place: Path) -> Dataset:
    """Of a webdataset, files of one name and different endings belong together: 0017.jpg with 0017.txt, .cls or .json.

    They stand beside each other, as webdataset asks for, so that one pass suffices.
    """
    captions: list[str] = []
    for shard in shards:
        captions += [caption for _, caption in _samples(shard, lambda file, name: None)]
    if not captions:
        raise UsageError(f"{place}: has no pictures of which something is said", hint=_HINT)

    def read() -> Iterator[Image.Image]:
        for shard in shards:
            for picture, _ in _samples(shard, _upright):
                assert picture is not None
                yield picture

    key = _digest([*((shard, "") for shard in shards)], captions)
    return Dataset(tuple(captions), read, key, f"{len(captions)} pictures of {place.name}")


def _samples(
    shard: Path, opened: Callable[[IO[bytes], str], Image.Image | None]
) -> Iterator[tuple[Image.Image | None, str]]:
    """(what `opened` makes of the picture, its caption) of every sample of a .tar that has both."""
    key, pictured, picture, caption = "", False, None, None
    try:
        with tarfile.open(shard, "r|") as tar:
            for member in tar:
                folder, _, base = member.name.rpartition("/")
                stem, dot, ending = base.partition(".")
                if not member.isfile() or not dot or not stem:
                    continue
                if f"{folder}/{stem}" != key:
                    if pictured and caption is not None:
                        yield picture, caption
                    key, pictured, picture, caption = f"{folder}/{stem}", False, None, None
                file, where = tar.extractfile(member), f"{shard}, {member.name}"
                assert file is not None
                if f".{ending.lower()}" in PICTURES:
                    pictured, picture = True, opened(file, where)
                elif ending in ("txt", "cls", "json"):
                    caption = _of_sample(file.read(MAX_TEXT), ending, where) or caption
        if pictured and caption is not None:
            yield picture, caption
    except (BadFileError, MemoryError):
        raise
    except Exception as error:  # a malformed archive makes tarfile's reader fail in every way there is
        raise BadFileError(f"{shard}: is no .tar that can be read: {str(error)[:200]}", hint=_HINT) from error


def _of_sample(content: bytes, ending: str, where: str) -> str | None:
    try:
        text = content.decode("utf-8").strip()
    except UnicodeDecodeError:
        raise BadFileError(f"{where}: is not UTF-8 text", hint=_HINT) from None
    return _said(_json(text, where)) if ending == "json" else text


def _json(text: str, where: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadFileError(f"{where}: is no JSON: {str(error)[:200]}", hint=_HINT) from error
    return found if isinstance(found, dict) else {}


def _said(found: dict[str, Any]) -> str | None:
    given = next((found[key] for key in KEYS if isinstance(found.get(key), str | int)), None)
    # Half of a surrogate pair, which JSON can name, is no character.
    return None if given is None else str(given).encode("utf-8", "replace").decode("utf-8")


def _caption(path: Path) -> str:
    return " ".join(_text(path, MAX_TEXT).split())


def _text(path: Path, limit: int) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(limit + 1)
            if len(content) > limit:
                raise BadFileError(f"{path}: is larger than {limit >> 20} MiB", hint=_HINT)
            return content.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not UTF-8"
        raise BadFileError(f"{path}: cannot be read: {why}", hint="every picture has a caption, or none has") from error


def _upright(file: IO[bytes], name: str) -> Image.Image:
    """The picture as its camera meant it, on white where it is transparent."""
    try:
        # Of a .tar, a picture may be a few bytes that say how many zeros follow.
        if len(content := file.read(MAX_BYTES + 1)) > MAX_BYTES:
            raise BadFileError(f"{name}: is larger than {MAX_BYTES >> 20} MiB", hint="make it smaller")
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise BadFileError(f"{name}: {image.width} x {image.height} px are too many", hint="make it smaller")
            upright = ImageOps.exif_transpose(image).convert("RGBA")
    except (BadFileError, MemoryError):
        raise
    except Exception as error:  # a malformed file makes Pillow's readers fail in every way there is
        raise BadFileError(f"{name}: is no readable picture: {str(error)[:200]}", hint="take it out") from error
    paper = Image.new("RGBA", upright.size, "white")
    paper.alpha_composite(upright)
    return paper.convert("RGB")


def _digest(files: Iterable[tuple[Path, str]], captions: Iterable[str] = ()) -> str:
    sha = hashlib.sha256()
    for path, caption in files:
        known = path.stat()
        sha.update(f"{path.name}\0{known.st_size}\0{known.st_mtime_ns}\0{caption}\n".encode())
    for caption in captions:
        sha.update(f"{caption}\n".encode())
    return sha.hexdigest()[:16]
