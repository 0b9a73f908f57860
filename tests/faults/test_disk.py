"""Disks that are full, may not be changed or go away: what is there stays, nothing half-written is left."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.builders import measured
from tests.faults.conftest import Mount
from tests.toys import FakeClock, family
from tests.unit.test_provenance import MADE
from tstitch_cli import documents, files, provenance
from tstitch_cli.errors import BadFileError, ExitStatus
from tstitch_cli.images import save_picture
from tstitch_cli.sample import Work, write
from tstitch_cli.schema import PROFILE_SCHEMA, PlannedDenoiser, Profile
from tstitch_cli.trajectory import Batch, run

ROOT = Path(__file__).parents[2]
NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))
"""A picture that does not compress."""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def fill(folder: Path) -> BadFileError:
    """Writes pictures until one cannot be."""
    for index in range(1000):
        try:
            save_picture(folder / f"{index:06d}.png", NOISE, MADE, overwrite=False)
        except BadFileError as error:
            return error
    raise AssertionError("the disk has room for everything")


def test_a_full_disk(mount: Mount) -> None:
    folder = mount("size=100k")
    told = fill(folder)
    assert told.status == ExitStatus.BAD_FILE
    assert "No space left on device" in told.message
    assert "free some space" in str(told.hint)
    written = names(folder)
    assert written == [f"{index:06d}.png" for index in range(len(written))]
    assert written
    assert f"{len(written):06d}.png" in told.message
    for name in written:
        assert provenance.read(folder / name) == MADE


@contextmanager
def _files_up_to(size: int) -> Iterator[None]:
    """The kernel writes no file of this process beyond `size` bytes, as a full disk or quota would have it."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_write_that_breaks_off_leaves_nothing(tmp_path: Path) -> None:
    with _files_up_to(1000):
        told = fill(tmp_path)
    assert "free some space" in str(told.hint)
    assert names(tmp_path) == []


def test_a_full_disk_keeps_the_profile_that_was_there(tmp_path: Path) -> None:
    path = tmp_path / "profile.yaml"
    documents.write_profile(measured(), path, overwrite=False)
    before = path.read_bytes()
    with _files_up_to(len(before) // 2), pytest.raises(BadFileError, match=r"profile.yaml: cannot be written"):
        documents.write_profile(measured(steps=30), path, overwrite=True)
    assert path.read_bytes() == before
    assert names(tmp_path) == ["profile.yaml"]


def test_a_folder_that_may_only_be_read(mount: Mount) -> None:
    folder = mount("size=1m")
    save_picture(folder / "000000.png", NOISE, MADE, overwrite=False)
    subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
    for path in (folder / "000001.png", folder / "deep" / "000001.png"):
        with pytest.raises(BadFileError, match=r"000001.png: cannot be written: ") as caught:
            save_picture(path, NOISE, MADE, overwrite=False)
        assert "choose" in str(caught.value.hint)
        with pytest.raises(BadFileError, match="cannot be written"):  # before anything is loaded
            files.refuse_existing(path, overwrite=False)
    assert names(folder) == ["000000.png"]


def test_a_folder_removed_in_the_middle_is_made_again(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    save_picture(folder / "000000.png", NOISE, MADE, overwrite=False)
    shutil.rmtree(folder)
    save_picture(folder / "000001.png", NOISE, MADE, overwrite=False)
    assert names(folder) == ["000001.png"]


def test_a_folder_removed_while_a_file_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, link = tmp_path / "pictures", os.link

    def remove(*args: object) -> None:
        shutil.rmtree(folder)
        link(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "link", remove)
    with pytest.raises(BadFileError, match=r"000000.png: cannot be written: No such file or directory"):
        save_picture(folder / "000000.png", NOISE, MADE, overwrite=False)
    assert names(tmp_path) == []


def test_pictures_of_earlier_calls_stay_when_a_later_one_finds_no_room(mount: Mount) -> None:
    folder = mount("size=16k")
    toy = family(FakeClock(), {"small": 1.0, "large": 2.0}, steps=2)
    denoisers = tuple(PlannedDenoiser(e.name, e.source, None) for e in toy.entries)
    work = Work(denoisers, toy.setting, ((1, 2),), (("small", 1), ("large", 1)))
    written: list[Path] = []

    def draw(index: int) -> None:
        batch = Batch(("bag", "dress"), (index, index + 1))
        trajectory = run(toy, batch, work.turns(), FakeClock())
        written.extend(write(toy, work, batch, trajectory, folder, overwrite=False))

    with pytest.raises(BadFileError, match="No space left"):
        any(map(draw, range(0, 40, 2)))
    assert len(written) >= 2
    # The first picture of the call that found no room may have found some.
    assert names(folder)[: len(written)] == [path.name for path in written]
    assert len(names(folder)) <= len(written) + 1
    assert all(provenance.read(folder / name).family == toy.latent_space for name in names(folder))


def test_a_profile_being_written_while_read(tmp_path: Path) -> None:
    path = tmp_path / "profile.yaml"
    versions = {steps: measured(steps) for steps in (10, 20, 30)}
    documents.write_profile(versions[10], path, overwrite=False)
    done = threading.Event()
    found: list[Profile] = []

    def read() -> None:
        while not done.is_set():
            found.append(documents.read_profile(path))

    reader = threading.Thread(target=read)
    reader.start()
    for turn in range(60):
        documents.write_profile(versions[(10, 20, 30)[turn % 3]], path, overwrite=True)
    done.set()
    reader.join()
    assert found
    assert all(each == versions[each.setting.steps] for each in found)


def test_a_profile_cut_off_in_the_middle_is_refused(tmp_path: Path) -> None:
    """What a program that does not write whole files, such as an editor or a copy, may leave."""
    whole = documents.render(measured(), PROFILE_SCHEMA).encode()
    path = tmp_path / "profile.yaml"
    for end in range(0, len(whole) - 2, 97):
        path.write_bytes(whole[:end])
        with pytest.raises(BadFileError, match=r"profile.yaml"):
            documents.read_profile(path)


RACE = """
import sys
from pathlib import Path
from tstitch_cli import files
from tstitch_cli.errors import BadFileError
folder, who = Path(sys.argv[1]), sys.argv[2]
sys.stdin.readline()
for index in range(300):
    try:
        files.write(folder / f"{index:06d}.png", who.encode() * 1000, overwrite=False)
        print(index)
    except BadFileError as error:
        assert "exists already" in error.message, error.message
"""


def test_two_processes_with_one_output(tmp_path: Path) -> None:
    """Each file is written by one of them, whole, and the other is told that it is there."""
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACE, str(tmp_path / "pictures"), who],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for who in "ab"
    ]
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    won = [set(map(int, racer.communicate()[0].split())) for racer in racers]
    assert [racer.returncode for racer in racers] == [0, 0]
    assert not won[0] & won[1]
    assert won[0] | won[1] == set(range(300))
    assert names(tmp_path / "pictures") == [f"{index:06d}.png" for index in range(300)]
    for index in range(300):
        content = (tmp_path / "pictures" / f"{index:06d}.png").read_bytes()
        assert content == (b"a" if index in won[0] else b"b") * 1000


def test_no_link_leads_out_of_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, outside = tmp_path / "pictures", tmp_path / "outside.txt"
    folder.mkdir()
    outside.write_text("precious")
    (folder / "000000.png").symlink_to(outside)
    (folder / "000001.png").symlink_to(tmp_path / "not-yet.txt")
    for name in ("000000.png", "000001.png"):
        with pytest.raises(BadFileError, match="is a link"):
            save_picture(folder / name, NOISE, MADE, overwrite=True)
    # Even one that was laid where the temporary file goes, whose name would have to be known for it.
    monkeypatch.setattr("secrets.token_hex", lambda count: "0" * 2 * count)
    (folder / ".x.yaml.00000000.tmp").symlink_to(outside)
    with pytest.raises(BadFileError):
        files.write(folder / "x.yaml", b"x", overwrite=True)
    assert outside.read_text() == "precious"
    assert not (tmp_path / "not-yet.txt").exists()
    # A document's link is replaced, and what it led to stays as it is.
    (folder / "plan.yaml").symlink_to(outside)
    monkeypatch.undo()
    files.write(folder / "plan.yaml", b"new", overwrite=True)
    assert outside.read_text() == "precious"
    assert not (folder / "plan.yaml").is_symlink()
