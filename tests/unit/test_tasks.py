"""What a setting asks of a pipeline: steps at a strength, videos, compiled denoisers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from tests import toys
from tests.pipelines import KINDS
from tstitch_cli import inputs, provenance, schedulers
from tstitch_cli.denoisers import Family
from tstitch_cli.errors import BadFileError, UsageError
from tstitch_cli.networks import task_pipelines
from tstitch_cli.profile import Effort, measure
from tstitch_cli.sample import Work, redraw, write
from tstitch_cli.schema import PlannedDenoiser, Setting
from tstitch_cli.stitching import stitch
from tstitch_cli.trajectory import Batch, run
from tstitch_cli.zoo.entry import Entry
from tstitch_cli.zoo.registry import Zoo
from tstitch_cli.zoo.tasks import check_task

SETTING = Setting(50, "ddim", 7.5, 1, 512, "float32", "cpu")


def entry(name: str, pipeline: str, **changes: Any) -> Entry:
    known = Zoo.load().entries["sd14"]
    return replace(known, name=name, pipeline=pipeline, **changes)


@pytest.mark.parametrize(("steps", "strength", "taken"), [(50, 0.6, 30), (50, 0.58, 29), (20, 0.33, 6), (4, 1.0, 4)])
def test_the_steps_that_are_taken(steps: int, strength: float, taken: int) -> None:
    assert replace(SETTING, steps=steps, strength=strength).taken == taken
    assert replace(SETTING, steps=steps).taken == steps


@pytest.mark.parametrize("kind", ["sd-image", "xl-inpaint", "sd3-image", "flux-image"])
def test_every_pipeline_takes_as_many_steps_as_the_setting_says(kind: str) -> None:
    """diffusers rounds steps * strength down in some pipelines and up in others, floating-point error included."""
    pipeline = KINDS[kind].make(KINDS[kind].denoiser(1))
    for steps in range(1, 51):
        pipeline.scheduler.set_timesteps(steps)
        for hundredth in range(1, 101):
            setting = replace(SETTING, steps=steps, strength=hundredth / 100)
            if setting.taken:
                strength = task_pipelines.strength_for(pipeline, setting, steps)
                assert pipeline.get_timesteps(steps, strength, "cpu")[1] == setting.taken
    assert task_pipelines.strength_for(pipeline, replace(SETTING, strength=0.1), 2) == 1.0


@pytest.mark.parametrize(
    ("pipeline", "changes", "said"),
    [
        ("PixArtSigmaPipeline", {"strength": 0.6}, "draws from noise alone"),
        ("StableDiffusionPipeline", {"strength": 0.0}, "above 0"),
        ("StableDiffusionPipeline", {"strength": 0.01}, "leaves none of 50"),
        ("StableDiffusionPipeline", {"inpaint": True}, "needs a strength"),
        ("StableDiffusionPipeline", {"frames": 5}, "has no frames"),
        ("WanPipeline", {"frames": 80}, "cannot draw 80 frames"),
        ("CogVideoXPipeline", {"frames": 13}, "a multiple of 8 and one more"),
        ("FluxPipeline", {"scheduler": "flow-heun"}, "cannot run it"),
        ("FluxPipeline", {"scheduler": "flow-unipc", "strength": 0.5}, "cannot run it"),
        ("Flux2KleinPipeline", {"scheduler": "flow-heun"}, "sets its noise levels itself"),
        ("Kandinsky5T2VPipeline", {"scheduler": "flow-unipc"}, "overwrites the latents"),
        ("Kandinsky5T2VPipeline", {"scheduler": "flow-euler", "frames": 120}, "cannot draw 120 frames"),
        ("SanaSprintPipeline", {"scheduler": "flow-euler"}, "counts in the angles of TrigFlow"),
        ("SanaPipeline", {"scheduler": "scm"}, "knows no TrigFlow"),
    ],
)
def test_tasks_that_a_pipeline_cannot_do_are_refused(pipeline: str, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        check_task(entry("it", pipeline), replace(SETTING, **changes))


def test_pictures_are_upright_opaque_and_cut_to_the_square(tmp_path: Path) -> None:
    turned = Image.new("RGBA", (30, 20), (255, 0, 0, 255))
    turned.paste((0, 0, 255, 0), (0, 0, 30, 10))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    turned.save(tmp_path / "photo.png", exif=exif)
    setting = replace(SETTING, size=16, strength=0.5)
    read = inputs.read(setting, tmp_path / "photo.png", None, None)
    assert read.image is not None
    assert (read.image.mode, read.image.size) == ("RGB", (16, 16))
    assert read.image.getpixel((1, 8)) == (255, 0, 0)
    assert read.image.getpixel((14, 8)) == (255, 255, 255)
    assert [(file.kind, len(file.digest)) for file in read.files] == [("image", 16)]


def test_pictures_of_absurd_size_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("L", (64, 64)).save(tmp_path / "large.png")
    for limit, said in (("MAX_PIXELS", "64 x 64 px are more"), ("MAX_BYTES", "is larger than")):
        with monkeypatch.context() as patched:
            patched.setattr(inputs, limit, 50)
            with pytest.raises(BadFileError, match=said):
                inputs.read(replace(SETTING, strength=0.5), tmp_path / "large.png", None, None)


def video_family() -> Family:
    kind = KINDS["wan"]
    denoisers = {"small": kind.denoiser(1), "large": kind.denoiser(2)}
    pipeline = kind.make(denoisers["large"])
    pipeline.scheduler = schedulers.build("flow-unipc", pipeline.scheduler.config)
    given = kind.given()
    pipeline.encode_prompt = lambda prompt, **more: (
        given["prompt_embeds"][: len(prompt)],
        given["negative_prompt_embeds"][: len(prompt)],
    )
    stitched = stitch(pipeline, kind.component, denoisers, "large")
    entries = tuple(entry(name, "WanPipeline", source=f"folder:/toys/{name}") for name in denoisers)
    setting = Setting(4, "flow-unipc", 5.0, 2, 16, "float32", "cpu", frames=5)
    weights = dict.fromkeys(denoisers, "0" * 16)
    return Family(entries, weights, denoisers, pipeline, stitched, setting, torch.device("cpu"))


def test_a_video_is_written_frame_by_frame_and_drawn_again(tmp_path: Path) -> None:
    family, clock = video_family(), toys.FakeClock()
    planned = tuple(PlannedDenoiser(e.name, e.source, e.revision) for e in family.entries)
    work = Work(planned, family.setting, ((1, 4),), (("small", 2), ("large", 2)))
    batch = Batch(("a fox", "a hare"), (0, 1))
    trajectory = run(family, batch, work.turns(), clock)
    assert [len(frames) for frames in trajectory.frames] == [5, 5]
    assert trajectory.images == tuple(frames[0] for frames in trajectory.frames)
    paths = write(family, work, batch, trajectory, tmp_path, overwrite=False)
    assert [path.name for path in paths] == [f"{i:06d}-{frame:03d}.png" for i in range(2) for frame in range(5)]
    again = redraw(family, provenance.read(paths[-1]), clock)
    assert [frame.tobytes() for frame in again] == [frame.tobytes() for frame in trajectory.frames[1]]


def test_compiling_is_load_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every denoiser is compiled once before it is measured, and the call that counts operations is not compiled."""
    clock = toys.FakeClock()
    family = toys.family(clock, {"small": 1.0, "large": 2.0}, steps=2)
    for denoiser in family.denoisers.values():
        denoiser._forward_pre_hooks.clear()  # the fake clock's, which would be compiled along
    clock.charge(family.stitched, 1.0)
    family = replace(family, setting=replace(family.setting, compiled=True))
    graphs: list[int] = []

    def compiler(graph: Any, example: Any) -> Any:
        graphs.append(len(calls))
        return graph.forward

    calls: list[str] = []
    family.stitched.entering.append(calls.append)
    torch.compiler.reset()
    family.stitched.compile(backend=compiler)
    batch = Batch(family.example_prompts(2), (0, 1))
    made = measure(family, batch, clock, Effort(1.0, 60), now=lambda: float(len(calls)))
    assert 0 < len(graphs) <= 2
    assert calls[:3] == ["small"] * 3
    assert graphs[0] == 2  # the first call counted operations
    assert all(seen < 10 for seen in graphs)
    assert made.notes.startswith("the first calls, which compile, took")
    assert all(d.flops for d in made.denoisers)
    torch.compiler.reset()
