"""The hub: what has to be fetched of a repository at one commit, and finding it on this disk.

Files go to huggingface's own cache, and only through huggingface_hub. What is loaded is then read from the cache's
folder for that commit, so nothing that loads ever touches the network. Beside the cached files of a commit, the names
and sizes of all its files are kept: with them, a second run needs no request.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tstitch_cli.fetching.downloads import File, Missing, fetch, quiet
from tstitch_cli.fetching.hub_errors import all_of, not_here, telling, together
from tstitch_cli.formats import strict_json
from tstitch_cli.zoo import allowed, needed
from tstitch_cli.zoo.controls import Control
from tstitch_cli.zoo.entry import Entry
from tstitch_cli.zoo.weights import parameters_in

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_COMMIT = re.compile(r"[0-9a-f]{40}")
_Parts = Literal["all", "text"]
"""Of a pipeline besides its denoiser: all its parts, or only the text encoders of those that have weights."""


def cache() -> Path:
    """Where huggingface_hub keeps what it fetched, found without importing it."""
    home = os.environ.get("HF_HOME") or os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "huggingface")
    given = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    return Path(os.path.expandvars(os.path.expanduser(given or os.path.join(home, "hub"))))


def offline() -> bool:
    """Whether the environment forbids to fetch anything, by huggingface's own variables."""
    given = os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE") or ""
    return given.upper() in {"1", "ON", "YES", "TRUE"}


def go_offline() -> None:
    """Forbids this process, with everything it starts, to fetch anything."""
    os.environ["HF_HUB_OFFLINE"] = "1"


def place(source: str) -> tuple[str, str | None] | None:
    """The repository and revision of a `hub:owner/name[@revision]` source; None for sources of other kinds."""
    kind, _, rest = source.partition(":")
    repository, _, revision = rest.partition("@")
    return (repository, revision or None) if kind == "hub" else None


def pinned(entry: Entry) -> Entry:
    """`entry` with the commits that its branches or tags, or the main branch, stand for now.

    Raises:
        UsageError: there is no such repository or revision, or it may not be read.
        BadFileError: the hub cannot be reached.
    """
    if own := place(entry.source):
        entry = replace(entry, revision=commit_of(own[0], entry.revision, _config_path(entry)))
    if entry.parts != entry.source and (other := place(entry.parts)):
        entry = replace(entry, parts=f"hub:{other[0]}@{commit_of(*other, needed.INDEX)}")
    return entry


def pinned_control(control: Control, recorded: str | None = None) -> Control:
    """`control` at the commit that a plan or picture `recorded`, else at what its revision stands for now.

    What was recorded of a ControlNet that is not the hub's is its digest, and says nothing here.
    Raises what `pinned` raises.
    """
    own = place(control.source)
    if own is None:
        return control
    at = recorded if recorded is not None and _COMMIT.fullmatch(recorded) else control.revision
    return replace(control, revision=commit_of(own[0], at, _config_path(control)))


def commit_of(repository: str, revision: str | None, path: str) -> str:
    """The commit that `revision`, or the main branch, stands for now; `path` is a small file to ask for.

    Raises what `pinned` raises.
    """
    if revision is not None and _COMMIT.fullmatch(revision):
        return revision
    return file(repository, path, revision).parents[path.count("/")].name


def file(repository: str, path: str, revision: str | None) -> Path:
    """One file of a repository, fetched into the cache or found there.

    Raises:
        UsageError: there is no such repository or revision, or it may not be read.
        BadFileError: there is no such file, or the hub cannot be reached.
    """
    with telling(repository, revision, path):
        import huggingface_hub

        quiet()
        return Path(
            huggingface_hub.hf_hub_download(
                repository, path, revision=revision, cache_dir=cache(), local_files_only=offline()
            )
        )


def config(repository: str, path: str, revision: str | None) -> dict[str, Any]:
    """The JSON object in a config of a repository; raises what `file` raises, BadFileError for broken JSON too."""
    return strict_json.read(file(repository, path, revision), f"{repository}, {path}")


def parameters(repository: str, commit: str, subfolder: str) -> int | None:
    """How many values a denoiser's weights hold, by their headers alone; None where they cannot be told offline.

    Raises what `file` raises, and BadFileError where there are no safetensors weights.
    """
    if (here := parameters_in(snapshot(repository, commit) / subfolder)) is not None:
        return here
    if offline():
        return None
    files = needed.denoiser_files(_listing(repository, commit), subfolder, "float32", repository)
    counted = 0
    for path in files:
        if path.endswith(".safetensors"):
            with telling(repository, commit, path):
                header = _api().parse_safetensors_file_metadata(repository, path, revision=commit)
            counted += sum(header.parameter_count.values())
    return counted


def missing(
    entries: Sequence[Entry],
    host: Entry,
    dtype: str,
    *,
    control: Control | None = None,
    embeddings: str | None = None,
) -> list[Missing]:
    """What has to be fetched to load `entries` in `dtype` into the pipeline of `host`; nothing is fetched but indexes.

    Every denoiser and the ControlNet `control` need config and safetensors weights, of the variant for the dtype where
    there is one; the host's pipeline needs its other parts, and with `embeddings` "own" every denoiser its text
    encoders. Entries and control are `pinned`.

    Raises:
        UsageError: a repository cannot be read, or its pipeline is made of classes that are not allowed.
        BadFileError: a repository has not what is needed, the hub cannot be reached, or something is missing that
            may not be fetched.
    """

    def of(each: Entry | Control) -> list[Missing]:
        part_of = isinstance(each, Entry) and each.name != host.name
        parts: _Parts | None = "all" if not part_of else None if embeddings is None else "text"
        return _missing(each, dtype, denoiser=True, parts=parts)

    wanted: list[Entry | Control] = [*entries] if control is None else [control, *entries]
    found = [missing for each in all_of(wanted, of) for missing in each]
    return _allowed(found, dtype)


def denoiser_folder(entry: Entry | Control, dtype: str) -> Path:
    """The folder on this disk with the config and weights of a denoiser or ControlNet of the hub, fetched if missing.

    Raises what `missing` and `downloads.fetch` raise.
    """
    fetch(_allowed(_missing(entry, dtype, denoiser=True), dtype), cache())
    return snapshot(*_at(entry.source, entry.revision, _config_path(entry))) / entry.subfolder


def parts_folder(entry: Entry, dtype: str, *, only_text: bool = False) -> Path:
    """The folder on this disk with the parts of the pipeline of an entry whose parts are a hub repository's.

    `only_text` leaves out the weights of all but the text encoders.

    Raises what `missing` and `downloads.fetch` raise.
    """
    fetch(_allowed(_missing(entry, dtype, denoiser=False, parts="text" if only_text else "all"), dtype), cache())
    return snapshot(*_at(entry.parts, entry.revision if entry.parts == entry.source else None))


def snapshot(repository: str, commit: str) -> Path:
    """Where the cache has the files of one commit, whether or not there are any."""
    return _repository_folder(repository) / "snapshots" / commit


def cached_at(folder: Path) -> Path | None:
    """The cache's folder of the repository that `folder` is of; None where it is not in the cache."""
    return cache() / folder.relative_to(cache()).parts[0] if folder.is_relative_to(cache()) else None


def snapshots(source: str, revision: str | None) -> list[Path]:
    """The folders of the cache in which a hub source may be found: of its revision where that is a commit, else all."""
    found = place(source)
    if found is None:
        return []
    at = revision or found[1]
    if at is not None and _COMMIT.fullmatch(at):
        return [snapshot(found[0], at)]
    return sorted((_repository_folder(found[0]) / "snapshots").glob("*"))


def _missing(entry: Entry | Control, dtype: str, *, denoiser: bool, parts: _Parts | None = None) -> list[Missing]:
    """What is missing of a ControlNet, of one entry's denoiser, of its pipeline's `parts`, or of both."""
    wanted: dict[tuple[str, str], list[str]] = {}
    if denoiser and place(entry.source):
        at = _at(entry.source, entry.revision, _config_path(entry))
        wanted[at] = needed.denoiser_files(_listing(*at, entry.name), entry.subfolder, dtype, at[0])
    if parts and isinstance(entry, Entry) and place(entry.parts):
        at = _at(entry.parts, entry.revision if entry.parts == entry.source else None)
        named = allowed.parts(config(at[0], needed.INDEX, at[1]), f"{at[0]}, {needed.INDEX}", entry.component)
        if parts == "text":
            named = {name: part for name, part in named.items() if part.encodes_text(name) or not part.has_weights}
        files = needed.part_files(_listing(*at, entry.name), named, dtype, at[0])
        wanted[at] = list(dict.fromkeys([*wanted.get(at, ()), *files]))
    found = []
    for (repository, commit), paths in wanted.items():
        folder, about = snapshot(repository, commit), _listing(repository, commit, entry.name)
        files_missing = {path: about[path] for path in paths if not (folder / path).is_file()}
        if files_missing:
            found.append(Missing(entry.name, repository, commit, files_missing))
    return found


def _allowed(found: Sequence[Missing], dtype: str) -> list[Missing]:
    """`found`, each file once; raises BadFileError where it may not be fetched."""
    if found and offline():
        called = (f"{each.name}@{each.commit}" if each.name == each.repository else each.name for each in found)
        raise together([not_here(name, list(each.files), dtype) for name, each in zip(called, found, strict=True)])
    once: list[Missing] = []
    seen: set[tuple[str, str, str]] = set()
    for each in found:
        files = {path: file for path, file in each.files.items() if (each.repository, each.commit, path) not in seen}
        seen |= {(each.repository, each.commit, path) for path in files}
        if files:
            once.append(replace(each, files=files))
    return once


def _at(source: str, revision: str | None, path: str = needed.INDEX) -> tuple[str, str]:
    """Repository and commit of a hub source that has a file `path`."""
    repository, given = place(source) or (source, None)
    return repository, commit_of(repository, revision or given, path)


def _config_path(entry: Entry | Control) -> str:
    return f"{entry.subfolder}/{needed.CONFIG}" if entry.subfolder else needed.CONFIG


def _listing(repository: str, commit: str, name: str | None = None) -> dict[str, File]:
    """The files of a repository at a commit: as they were told once, else as the hub tells; offline, those here."""
    record = _repository_folder(repository) / "tstitch" / f"{commit}.json"
    with suppress(OSError, ValueError, TypeError, AttributeError, RecursionError):
        return {path: File(*about) for path, about in json.loads(record.read_text(encoding="utf-8")).items()}
    folder = snapshot(repository, commit)
    if offline():
        if not folder.is_dir():
            raise not_here(name or repository, [], None)
        return {path: File((folder / path).stat().st_size, None) for path in needed.paths_in(folder)}
    with telling(repository, commit, None):
        told = _api().model_info(repository, revision=commit, files_metadata=True, timeout=30.0).siblings or []
        files = {each.rfilename: File(each.size or 0, each.lfs.sha256 if each.lfs else None) for each in told}
    with suppress(OSError):  # a cache that may only be read is asked about again every time
        record.parent.mkdir(parents=True, exist_ok=True)
        temporary = record.with_name(f".{os.getpid()}.tmp")
        temporary.write_text(json.dumps({path: [of.size, of.sha256] for path, of in files.items()}), encoding="utf-8")
        os.replace(temporary, record)
    return files


def _api() -> HfApi:
    import huggingface_hub

    quiet()
    return huggingface_hub.HfApi()


def _repository_folder(repository: str) -> Path:
    return cache() / f"models--{repository.replace('/', '--')}"
