"""`tstitch profile --random-weights` as it is typed: measured, planned, and never drawn with."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from tests.tiny import PAIRS, tiny
from tstitch_cli.app import app
from tstitch_cli.documents import read_plan, read_profile
from tstitch_cli.zoo.entry import Entry

SHARED = ("component", "pipeline", "licence", "latent_space", "noise", "conditioning", "defaults", "components")
MEASURE = "profile toy-bk-sdm-tiny toy-sd14 --steps 2 --size 64 --device cpu --max-time 1s --tolerance 50%"


@pytest.fixture(autouse=True)
def toy_zoo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A zoo file with Stable Diffusion's structure at toy size, whose weights are nowhere."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "huggingface"))
    entries = [tiny(name) for name in PAIRS["stable-diffusion"]]
    facts = {key: value for key, value in asdict(entries[0]).items() if key in SHARED}
    facts["latent_space"]["name"] = "toys"
    facts["conditioning"] = {"kind": "text", "width": 16}
    content = {
        "schema": "tstitch/zoo/1",
        "families": {"toys": facts},
        "denoisers": {f"toy-{entry.name}": _facts(entry) for entry in entries},
    }
    Path("zoo.yaml").write_text(json.dumps(content))
    monkeypatch.setenv("TSTITCH_ZOO", str(tmp_path / "zoo.yaml"))


def _facts(entry: Entry) -> dict[str, object]:
    assert entry.architecture is not None
    built = {"model": entry.architecture.model, "config": entry.architecture.config}
    return {"family": "toys", "source": f"folder:{entry.name}", "architecture": built, "parameters": entry.parameters}


def tstitch(arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def test_measured_and_planned_without_weights_and_not_drawn(tmp_path: Path) -> None:
    done = tstitch(f"{MEASURE} --random-weights")
    assert done.exit_code == 0, done.stderr
    assert "measured with random weights" in done.stderr
    (path,) = Path("profiles").iterdir()
    assert path.name == "cpu-toys-toy-bk-sdm-tiny-toy-sd14-pndm2-b1-f32-64px-g7.5-random.yaml"
    made = read_profile(path)
    assert made.fingerprint is not None
    assert (made.origin, made.fingerprint.random) == ("measured", True)

    done = tstitch("plan --budget 1000%")
    assert done.exit_code == 0, done.stderr
    assert "measured with random weights" in done.stdout + done.stderr
    planned = read_plan(Path("plan.yaml"))
    assert planned.fingerprint == made.fingerprint

    done = tstitch("sample --prompt fox")
    assert done.exit_code == 5
    said = [line for line in done.stderr.splitlines() if line.strip()]
    assert said[0] == (
        "error: the plan was measured with random weights: it tells how long calls take and has nothing to draw with"
    )
    assert "--allow-stale" in said[1]
    assert not Path("pictures").exists()

    done = tstitch("sample --prompt fox --allow-stale")
    assert done.exit_code == 3
    assert "cannot be loaded" in done.stderr
    assert not Path("pictures").exists()


def test_where_the_weights_are_not_the_way_without_them_is_told() -> None:
    done = tstitch(MEASURE)
    assert done.exit_code == 3
    errors = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert "toy-bk-sdm-tiny" in errors[0]
    assert "--random-weights" in done.stderr
    assert "Traceback" not in done.stderr
    assert not Path("profiles").exists()
