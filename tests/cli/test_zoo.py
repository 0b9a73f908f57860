"""`tstitch zoo` as it is typed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tstitch_cli.app import app

runner = CliRunner()


@pytest.fixture(autouse=True)
def nobodys_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "huggingface"))
    monkeypatch.delenv("TSTITCH_ZOO", raising=False)
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)


def test_every_denoiser_is_listed_with_family_size_and_source() -> None:
    done = runner.invoke(app, ["zoo"])
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    families = [line.split()[0] for line in lines if line and not line.startswith(" ")]
    assert families == sorted(families)
    assert {"dit-256", "ldm-256", "u-vit-256"} <= {*families}
    assert {"fashion", "flux", "sana", "sd3", "sdxl", "stable-diffusion", "stable-diffusion-2", "wan"} <= {*families}
    tiny = next(line for line in lines if "bk-sdm-tiny" in line)
    assert " ".join(tiny.split()) == "bk-sdm-tiny 323 M not here hub:nota-ai/bk-sdm-tiny CreativeML OpenRAIL-M"
    sizes = [line.split()[0] for line in lines[lines.index(_line(lines, "sdxl ")) :][1:8]]
    assert sizes == ["lcm-sdxl", "sdxl", "lcm-ssd-1b", "ssd-1b", "koala-1b", "koala-700m", "segmind-vega"]
    assert _line(lines, "sdxl ") == "sdxl  KL-f8 of SDXL, 1024 px, 50 steps of euler"


def _line(lines: list[str], start: str) -> str:
    return next(line for line in lines if line.startswith(start))


def test_json_says_all_that_is_known() -> None:
    done = runner.invoke(app, ["zoo", "--json"])
    found = {entry["name"]: entry for entry in json.loads(done.stdout)}
    assert found["fashion-s"]["parameters"] == 628912
    assert found["sd14"]["noise"]["prediction"] == "epsilon"
    assert found["sd14"]["here"] is False


def test_the_users_entries_are_listed_with_a_remark_on_stderr(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "zoo.yaml"
    path.write_text(
        "schema: tstitch/zoo/1\ndenoisers:\n  sd14: {family: stable-diffusion, source: 'hub:me/sd[red]'}\n".replace(
            "[red]", ""
        )
        + "  '[bold]odd': {family: stable-diffusion, source: 'hub:me/odd'}\n"
    )
    monkeypatch.setenv("TSTITCH_ZOO", str(path))
    done = runner.invoke(app, ["zoo"])
    assert done.exit_code == 0
    assert "[bold]odd" in done.stdout
    assert "hub:me/sd" in done.stdout
    assert "remark" in done.stderr
    assert "remark" not in done.stdout


def test_a_broken_zoo_file_is_a_bad_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "zoo.yaml"
    path.write_text("schema: tstitch/zoo/1\ndenoiser: {}\n")
    monkeypatch.setenv("TSTITCH_ZOO", str(path))
    done = runner.invoke(app, ["zoo"])
    assert done.exit_code == 3
    assert "zoo.yaml:2" in done.stderr
    assert "Traceback" not in done.stderr


def test_nothing_heavy_is_imported() -> None:
    code = (
        "import sys; from tstitch_cli.app import app\n"
        "app(['zoo'], standalone_mode=False)\n"
        "heavy = {'torch', 'diffusers', 'transformers', 'huggingface_hub', 'matplotlib'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
