"""`tstitch convert` as it is typed: from two original checkpoints to pictures."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest
import torch
import yaml
from typer.testing import CliRunner

from tests import originals, toys
from tstitch_cli import provenance
from tstitch_cli.app import app

runner = CliRunner()


@pytest.fixture
def zoo(here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A zoo with two small class-conditional U-Nets, `big` and `little`, that are made from checkpoints."""
    big, little = (
        toys.tiny("ldm-256"),
        toys.tiny("ldm-s-256", block_out_channels=[4, 8, 8], attention_head_dim=[1, 2, 2]),
    )
    assert big.architecture is not None
    assert little.architecture is not None
    family = {
        "component": "unet",
        "pipeline": big.pipeline,
        "parts": "converted:big",
        "licence": big.licence,
        "latent_space": asdict(big.latent_space),
        "noise": asdict(big.noise),
        "conditioning": {"kind": "class", "labels": list(big.conditioning.labels)},
        "defaults": asdict(big.defaults),
        "components": {name: asdict(part) for name, part in big.components.items()},
    }
    denoisers = {
        name: {
            "family": "tiny",
            "source": f"converted:{name}",
            "parameters": size,
            "architecture": asdict(architecture),
        }
        for name, size, architecture in (("big", 2, big.architecture), ("little", 1, little.architecture))
    }
    file = {"schema": "tstitch/zoo/1", "families": {"tiny": family}, "denoisers": denoisers}
    (here / "zoo.yaml").write_text(yaml.safe_dump(file))
    monkeypatch.setenv("TSTITCH_ZOO", str(here / "zoo.yaml"))
    monkeypatch.setenv("XDG_DATA_HOME", str(here / "data"))
    state = originals.ldm_state(1, widths=(8, 16, 16), context=8, rows=toys.NULL_CLASS)
    torch.save({"state_dict": state}, here / "ldm.ckpt")
    torch.save({"state_dict": originals.ldm_state(2, widths=(4, 8, 8), context=8, rows=11)}, here / "ldm_s.ckpt")
    torch.save({"state_dict": originals.vq_state(3, widths=(8, 8, 8, 16), codes=16)}, here / "vq.ckpt")
    return here


def test_from_checkpoints_to_pictures(zoo: Path) -> None:
    profile = ["profile", "little", "big", "--steps", "2", "--batch-size", "1", "--max-time", "2s", "--out", "p.yaml"]
    profile += ["--device", "cpu"]
    early = runner.invoke(app, profile)
    assert early.exit_code == 3, early.output
    assert "tstitch convert little " in early.stderr
    made = runner.invoke(app, ["convert", "big", "ldm.ckpt", "--autoencoder", "vq.ckpt"])
    assert (made.exit_code, made.stdout) == (0, f"{zoo / 'data' / 'tstitch' / 'converted' / 'big'}\n"), made.output
    assert runner.invoke(app, ["convert", "little", "ldm_s.ckpt"]).exit_code == 0
    profiled = runner.invoke(app, profile)
    assert profiled.exit_code == 0, profiled.output
    assert runner.invoke(app, ["plan", "--profile", "p.yaml", "--budget", "1min"]).exit_code == 0
    drawn = runner.invoke(app, ["sample", "--prompt", "Tinca tinca", "--row", "1"])
    assert drawn.exit_code == 0, drawn.output
    assert provenance.read(Path("pictures/000000.png")).prompt == "Tinca tinca"


@pytest.mark.parametrize(
    ("words", "status", "told"),
    [
        (["big", "ldm.ckpt"], 2, "--autoencoder"),
        (["big", "none.ckpt"], 3, "no such file"),
        (["little", "vq.ckpt"], 3, "missing: "),
        (["fashion-s", "ldm.ckpt"], 2, "bundled:"),
        (["bigg", "ldm.ckpt"], 2, "did you mean big"),
        (["little"], 2, "CHECKPOINT"),
    ],
)
def test_what_cannot_be_converted_is_told(zoo: Path, words: list[str], status: int, told: str) -> None:
    done = runner.invoke(app, ["convert", *words])
    assert (done.exit_code, done.stdout) == (status, "")
    assert told in done.stderr
    assert "Traceback" not in done.stderr
    assert not (zoo / "data" / "tstitch" / "converted").exists()
