"""Two local Stable Diffusion folders nobody named: from folders to pictures, by the code that loads `sd14`."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests import toys
from tstitch_cli import provenance
from tstitch_cli.app import app
from tstitch_cli.documents import read_profile


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`large` and `small`: Stable Diffusion pipelines whose U-Nets differ in width, as BK-SDM's and SD's do."""
    return toys.sd_folders(tmp_path_factory.mktemp("models"))


def test_from_folders_to_pictures(folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = CliRunner()
    given = ("--scheduler", "pndm", "--steps", "5", "--size", "16", "--max-time", "5s", "--device", "cpu")
    profiled = run.invoke(app, ["profile", str(folders / "large"), str(folders / "small"), *given, "--out", "p.yaml"])
    assert profiled.exit_code == 0, profiled.output
    made = read_profile(Path("p.yaml"))
    assert made.evaluations == ((2, 1), (1, 4))
    assert {d.source for d in made.denoisers} == {f"folder:{folders / name}" for name in ("small", "large")}
    planned = run.invoke(app, ["plan", "--profile", "p.yaml", "--budget", "100%"])
    assert planned.exit_code == 0, planned.output
    command = ["sample", "--prompt", "a red fox", "--negative-prompt", "snow", "--row", "5"]
    drawn = run.invoke(app, command)
    assert drawn.exit_code == 0, drawn.output
    told = provenance.read(Path("pictures/000000.png"))
    assert (told.prompt, told.negative_prompt) == ("a red fox", "snow")
    assert {name for name, _ in told.allocation} <= {"small", "large"}
    again = run.invoke(app, ["sample", "--from", "pictures/000000.png", "--out", "again"])
    assert again.exit_code == 0, again.output
    assert Path("again/000000.png").read_bytes() == Path("pictures/000000.png").read_bytes()
    assert "is left out" not in drawn.output
    for i, more in enumerate(([], ["--sweep"])):
        longer = run.invoke(app, ["sample", "--prompt", "a red fox " * 20, *more, "--out", f"long{i}"])
        assert longer.exit_code == 0, longer.output
        assert "is left out" in longer.output


def test_a_folder_as_train_writes_it_is_drawn_with_in_few_steps(
    folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Denoisers in folders of their own beside the pipeline's other parts, told the guidance scale: LCM's setting."""
    import shutil

    family = tmp_path / "family"
    shutil.copytree(folders / "large", family, ignore=shutil.ignore_patterns("unet"))
    for name, width in (("small-lcm", 16), ("large-lcm", 32)):
        unet = toys.tiny_unet(1, block_out_channels=(8, width), time_cond_proj_dim=8)
        unet.save_pretrained(family / name / "unet")
    monkeypatch.chdir(tmp_path)
    run = CliRunner()
    names = ("family/small-lcm", "./family/large-lcm/")
    profiled = run.invoke(app, ["profile", *names, "--max-time", "2s", "--device", "cpu", "--out", "p.yaml"])
    assert profiled.exit_code == 0, profiled.output
    made = read_profile(Path("p.yaml"))
    assert (made.setting.scheduler, made.setting.steps, made.setting.guidance) == ("lcm", 4, 8.5)
    assert [d.name for d in made.denoisers] == ["small-lcm", "large-lcm"]
    assert run.invoke(app, ["plan", "--profile", "p.yaml", "--budget", "100%"]).exit_code == 0
    drawn = run.invoke(app, ["sample", "--prompt", "a fox"])
    assert drawn.exit_code == 0, drawn.output


def test_broken_weights_are_told_in_one_sentence(folders: Path, tmp_path: Path) -> None:
    import shutil

    broken = tmp_path / "broken"
    shutil.copytree(folders / "large", broken)
    weights = broken / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    out = tmp_path / "p.yaml"
    result = CliRunner().invoke(
        app, ["profile", str(broken), str(folders / "small"), "--device", "cpu", "--out", str(out)]
    )
    assert result.exit_code == 3, result.output
    assert "Traceback" not in result.output
    assert not out.exists()
