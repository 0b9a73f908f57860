"""`tstitch show` as it is typed."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from tests.unit.test_provenance import MADE
from tstitch_cli.app import app
from tstitch_cli.images import save_picture
from tstitch_cli.provenance import Provenance, from_json
from tstitch_cli.schema import GivenFile

runner = CliRunner()


def drawn(path: Path, made: Provenance = MADE) -> str:
    save_picture(path, Image.new("L", (8, 8)), made, overwrite=False)
    return str(path)


def test_it_tells_how_a_picture_was_made(tmp_path: Path) -> None:
    path = drawn(tmp_path / "my picture.png", replace(MADE, negative_prompt="blurry"))
    done = runner.invoke(app, ["show", path])
    assert done.exit_code == 0
    for told in (
        "ankle boot",
        "blurry",
        "seed            7",
        "fashion-s: steps 1 to 8",
        "fashion-xl: steps 9 to 20",
        "20 steps of ddim, guidance 1.5",
        "32 x 32 px",
        "torch 2.6.0",
        f"tstitch sample --from '{path}' --out again",
    ):
        assert told in done.stdout


def test_it_tells_everything_that_was_set_and_every_file(tmp_path: Path) -> None:
    setting = replace(
        MADE.setting,
        embeddings="own",
        schedule="fashion-s",
        accelerate=("deepcache:interval=2:branch=0",),
        offload=True,
    )
    files = (GivenFile("image", "a fox.jpg", "12ab"), GivenFile("lora", "ink.safetensors", "34cd", 0.8))
    done = runner.invoke(app, ["show", drawn(tmp_path / "a.png", replace(MADE, setting=setting, files=files))])
    assert done.exit_code == 0
    for told in (
        "float32 on cpu, noise schedule of fashion-s, text embeddings: own, deepcache (interval 2, branch 0), parts in",
        "files           image a fox.jpg (digest 12ab)\n",
        "lora ink.safetensors at 0.8 (digest 34cd)\n",
    ):
        assert told in done.stdout


def test_json_is_the_provenance(tmp_path: Path) -> None:
    done = runner.invoke(app, ["show", drawn(tmp_path / "a.png"), "--json"])
    assert from_json(done.stdout) == MADE
    assert json.loads(done.stdout)["schema"] == "tstitch/picture/1"


@pytest.mark.parametrize(
    "prompt", ["\x1b]0;owned\x07\x1b[2J", "\x9b31m", "safe\u202etxt.exe", "a\rb\nc", "\udc80", "[bold]x[/]"]
)
def test_no_text_in_a_picture_steers_the_terminal(tmp_path: Path, prompt: str) -> None:
    odd = replace(MADE, prompt=prompt, family=prompt, versions={prompt: prompt}, negative_prompt=prompt)
    path = drawn(tmp_path / "a.png", odd)
    command = [sys.executable, "-m", "tstitch_cli.app", "show", path]
    done = subprocess.run(command, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    text = done.stdout.decode()
    assert not {c for c in text if c != "\n" and not c.isprintable()}
    shown = prompt if prompt.isprintable() else prompt.encode("unicode_escape").decode()
    assert f"prompt          {shown}\n" in text


@pytest.mark.parametrize("content", [b"", b"no picture", None])
def test_other_files_are_refused_with_a_hint(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "a.png"
    if content is None:
        Image.new("L", (8, 8)).save(path)
    else:
        path.write_bytes(content)
    done = runner.invoke(app, ["show", str(path)])
    assert done.exit_code == 3
    assert "a.png" in done.stderr
    assert "hint:" in done.stderr
    assert done.stdout == ""


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    assert runner.invoke(app, ["show", str(tmp_path / "none.png")]).exit_code == 3


def test_a_denoiser_is_no_picture() -> None:
    told = runner.invoke(app, ["show", "tiny-sd"])
    assert told.exit_code == 2
    assert "`tstitch zoo` tells of denoisers" in told.stderr


def test_nothing_heavy_is_imported(tmp_path: Path) -> None:
    code = (
        "import sys; from tstitch_cli.app import app\n"
        "app(['show', sys.argv[1]], standalone_mode=False)\n"
        "heavy = {'torch', 'diffusers', 'transformers', 'huggingface_hub', 'matplotlib'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    path = drawn(tmp_path / "a.png")
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
